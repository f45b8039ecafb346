//! The subject of a token identifies the reader, and no other subject does.

use api::auth::{AdminAccess, TokenVerifier};
use serde_json::{Value, json};
use server::config::{AuthArgs, SubjectForm};
use tests::App;
use tests::issuer::SigningKey;
use tests::reader::id;
use uuid::Uuid;

use super::{by_file, claims_with, verify};

#[tokio::test]
async fn subject_identifies_the_reader_and_scope_the_operator() {
    let key = SigningKey::rsa("a");
    let (args, _file) = by_file(&[&key]);
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    let caller = async |changes: Value| {
        let token = key.token(&claims_with(&changes));
        verify(&verifier, &token).await.unwrap()
    };
    let user = Uuid::new_v4();
    let reader = caller(json!({ "sub": user })).await;
    assert_eq!(reader.reader_id.to_string(), user.to_string());
    assert_eq!(reader.admin, AdminAccess::None);
    let jo = caller(json!({ "sub": "auth0|jo", "iss": "a" })).await;
    let again = caller(json!({ "sub": "auth0|jo", "iss": "a", "scope": "reading:admin" })).await;
    let other = caller(json!({ "sub": "auth0|jo", "iss": "b", "scp": ["x"] })).await;
    assert_eq!(jo.reader_id, again.reader_id);
    assert_ne!(jo.reader_id, other.reader_id);
    let access = [jo, again, other].map(|caller| caller.admin);
    assert_eq!(
        access,
        [AdminAccess::None, AdminAccess::Act, AdminAccess::None]
    );
}

#[tokio::test]
async fn no_subject_opens_the_sessions_of_another_subject() {
    let key = SigningKey::ed("a");
    let (args, _file) = by_file(&[&key]);
    let app = App::with_auth(args).await;
    let reader = |subject: &str| {
        let token = key.token(&claims_with(&json!({ "sub": subject })));
        app.reader_with_token(Uuid::new_v4(), token)
    };
    let user = Uuid::new_v4();
    for (subject, forged) in [
        // The id of a mapped subject, which anyone can compute.
        ("auth0|jo", None),
        (&*user.to_string(), Some(user.to_string().to_uppercase())),
        (&*user.to_string(), Some(user.simple().to_string())),
        (&*user.to_string(), Some(user.urn().to_string())),
    ] {
        let session = reader(subject).start(Uuid::new_v4()).await.ok();
        let mapped = session["user_id"].as_str().unwrap().to_owned();
        let other = reader(&forged.unwrap_or(mapped));
        assert_eq!(other.active().await.ok(), Value::Null);
        let _ = other.session(id(&session)).await.problem(404);
    }
}

#[tokio::test]
async fn ids_of_earlier_releases_can_be_kept() {
    let key = SigningKey::ed("a");
    let (args, _file) = by_file(&[&key]);
    let args = AuthArgs {
        jwt_subjects: SubjectForm::AnyUuid,
        ..args
    };
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    let user = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"a user");
    for subject in [user.to_string(), user.simple().to_string().to_uppercase()] {
        let token = key.token(&claims_with(&json!({ "sub": subject })));
        let caller = verify(&verifier, &token).await.unwrap();
        assert_eq!(caller.reader_id, user.into(), "{subject}");
    }
}
