//! Issuers that rotate their keys, are unreachable, or return invalid responses.

use std::time::Duration;

use api::auth::{TokenVerifier, VerifyError};
use axum::http::{HeaderValue, StatusCode};
use serde_json::json;
use tests::issuer::{Issuer, SigningKey, key_set};
use tests::{App, until};
use uuid::Uuid;

use super::{by_file, by_url, call, claims, refused};

/// How long the service may take to detect a change at an issuer.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn new_key_is_fetched_once_for_concurrent_requests() {
    let (old, new) = (SigningKey::rsa("old"), SigningKey::ec("new"));
    let issuer = Issuer::start(&[&old]).await;
    let app = App::with_auth(by_url(&issuer)).await;
    let reader = |key: &SigningKey| app.reader_with_token(Uuid::new_v4(), key.token(&claims()));
    let old_reader = reader(&old);
    let _ = old_reader.active().await.ok();
    assert_eq!(issuer.fetches(), 1);

    issuer.publish(&[&new]);
    let statuses = async |key: &SigningKey| {
        let calls = (0..50).map(|_| reader(key)).map(async |reader| {
            let response = reader.active().await;
            response.status.as_u16()
        });
        futures::future::join_all(calls).await
    };
    assert_eq!(statuses(&new).await, [200; 50]);
    assert_eq!(issuer.fetches(), 2, "one fetch for all requests");
    // Tokens of the revoked key are rejected, even those that are cached.
    let _ = old_reader.active().await.problem(401);
    let _ = reader(&old).active().await.problem(401);

    // Unpublished key ids do not cause another fetch so soon.
    assert_eq!(statuses(&SigningKey::ec("unknown")).await, [401; 50]);
    let unreadable = SigningKey::ed("new");
    assert_eq!(statuses(&unreadable).await, [401; 50]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn failing_issuer_leaves_the_last_good_keys() {
    let (key, new) = (SigningKey::ed("key"), SigningKey::ed("new"));
    let huge = json!({ "keys": [new.jwk()], "padding": "x".repeat(300 * 1024) });
    let responses = [
        (StatusCode::INTERNAL_SERVER_ERROR, key_set(&[&new])),
        (StatusCode::FOUND, key_set(&[&new])),
        (StatusCode::NO_CONTENT, json!("")),
        (StatusCode::OK, json!("an error page")),
        (StatusCode::OK, json!({ "keys": [] })),
        (
            StatusCode::OK,
            json!({ "keys": [{ "kty": "oct", "k": "AA", "kid": "new" }] }),
        ),
        (StatusCode::OK, huge),
    ];
    for (status, body) in responses {
        let issuer = Issuer::start(&[&key]).await;
        let verifier = TokenVerifier::new(&by_url(&issuer).settings().unwrap()).unwrap();
        assert!(verifier.verify(&key.token(&claims())).await.is_ok());
        issuer.respond_with(status, body.to_string());
        assert!(refused(&verifier, &new.token(&claims())).await, "{status}");
        assert_eq!(issuer.fetches(), 2, "the new key causes a fetch");
        assert!(verifier.verify(&key.token(&claims())).await.is_ok());
    }
}

#[tokio::test]
async fn issuer_unreachable_at_start_is_retried() {
    let key = SigningKey::rsa("key");
    let issuer = Issuer::start(&[&key]).await;
    issuer.respond_with(StatusCode::BAD_GATEWAY, String::new());
    let app = App::with_auth(by_url(&issuer)).await;
    let reader = app.reader_with_token(Uuid::new_v4(), key.token(&claims()));
    let response = reader.active().await;
    assert!(response.headers.contains_key("retry-after"));
    assert!(!response.headers.contains_key("www-authenticate"));
    assert_eq!(response.problem_code(503), "keys_unavailable");
    // A token that no key could verify is rejected without keys.
    let bearer = HeaderValue::from_static("Bearer x");
    assert_eq!(call(&app, bearer).await.0, 401);

    issuer.publish(&[&key]);
    until("the keys are available", DETECTION_TIMEOUT, async || {
        reader.active().await.status == 200
    })
    .await;
}

#[tokio::test]
async fn redirect_of_the_key_url_is_not_followed() {
    let key = SigningKey::rsa("key");
    let issuer = Issuer::start(&[&key]).await;
    issuer.respond_with(StatusCode::FOUND, String::new());
    let verifier = TokenVerifier::new(&by_url(&issuer).settings().unwrap()).unwrap();
    let result = verifier.verify(&key.token(&claims())).await;
    assert_eq!(result, Err(VerifyError::KeysUnavailable));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn changed_key_file_is_read_again() {
    let (old, new, later) = (
        SigningKey::rsa("old"),
        SigningKey::ed("new"),
        SigningKey::ec("later"),
    );
    let (args, file) = by_file(&[&old]);
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    let cached = old.token(&claims());
    assert!(verifier.verify(&cached).await.is_ok());
    assert!(verifier.verify(&cached).await.is_ok());

    // A token with a new key triggers a read at once.
    std::fs::write(&file, key_set(&[&new]).to_string()).unwrap();
    assert!(verifier.verify(&new.token(&claims())).await.is_ok());
    assert!(refused(&verifier, &cached).await);

    // Without such a token, the file is read again periodically.
    let good = new.token(&claims());
    std::fs::write(&file, key_set(&[&later]).to_string()).unwrap();
    until("the old key is rejected", DETECTION_TIMEOUT, async || {
        refused(&verifier, &good).await
    })
    .await;
    assert!(verifier.verify(&later.token(&claims())).await.is_ok());

    // A broken or missing file changes nothing.
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    let good = later.token(&claims());
    assert!(verifier.verify(&good).await.is_ok());
    std::fs::write(&file, "{\"keys\": [").unwrap();
    assert!(refused(&verifier, &new.token(&claims())).await);
    assert!(verifier.verify(&good).await.is_ok());
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    assert_eq!(
        verifier.verify(&good).await,
        Err(VerifyError::KeysUnavailable)
    );
    std::fs::write(&file, key_set(&[&later]).to_string()).unwrap();
    until("the repaired file is read", DETECTION_TIMEOUT, async || {
        verifier.verify(&good).await.is_ok()
    })
    .await;
    std::fs::remove_file(&file).unwrap();
    assert!(refused(&verifier, &new.token(&claims())).await);
    assert!(verifier.verify(&good).await.is_ok());
}
