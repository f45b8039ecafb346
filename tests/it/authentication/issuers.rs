//! Issuers that change their keys, are away, or answer nonsense.

use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode};
use serde_json::json;
use services::api::auth::{Keys, Refusal};
use tests::App;
use tests::issuer::{Issuer, SigningKey, set_of};
use uuid::Uuid;

use super::{by_file, by_url, call, claims, refused};

/// How long anything of an issuer may take to be noticed.
const NOTICED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_new_key_is_fetched_once_for_all_who_bring_it() {
    let (old, new) = (SigningKey::rsa("old"), SigningKey::ec("new"));
    let issuer = Issuer::start(&[&old]).await;
    let app = App::trusting(by_url(&issuer)).await;
    let reader = |key: &SigningKey| app.reader_with_token(Uuid::new_v4(), key.token(&claims()));
    let veteran = reader(&old);
    let _ = veteran.active().await.ok();
    assert_eq!(issuer.fetches(), 1);

    issuer.publish(&[&new]);
    let storm = async |key: &SigningKey| {
        let calls = (0..50).map(|_| reader(key)).map(async |reader| {
            let answer = reader.active().await;
            answer.status.as_u16()
        });
        futures::future::join_all(calls).await
    };
    assert_eq!(storm(&new).await, [200; 50]);
    assert_eq!(issuer.fetches(), 2, "one for all");
    // The key that was taken back opens nothing, known token or not.
    let _ = veteran.active().await.problem(401);
    let _ = reader(&old).active().await.problem(401);

    // Names that nobody has published do not make anyone ask again so soon.
    assert_eq!(storm(&SigningKey::ec("unknown")).await, [401; 50]);
    let unreadable = SigningKey::ed("new");
    assert_eq!(storm(&unreadable).await, [401; 50]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn an_issuer_that_fails_leaves_the_last_good_keys() {
    let (key, new) = (SigningKey::ed("key"), SigningKey::ed("new"));
    let huge = json!({ "keys": [new.jwk()], "padding": "x".repeat(300 * 1024) });
    let answers = [
        (StatusCode::INTERNAL_SERVER_ERROR, set_of(&[&new])),
        (StatusCode::FOUND, set_of(&[&new])),
        (StatusCode::NO_CONTENT, json!("")),
        (StatusCode::OK, json!("an error page")),
        (StatusCode::OK, json!({ "keys": [] })),
        (
            StatusCode::OK,
            json!({ "keys": [{ "kty": "oct", "k": "AA", "kid": "new" }] }),
        ),
        (StatusCode::OK, huge),
    ];
    for (status, body) in answers {
        let issuer = Issuer::start(&[&key]).await;
        let keys = Keys::new(&by_url(&issuer)).unwrap();
        assert!(keys.verify(&key.token(&claims())).await.is_ok());
        issuer.answer(status, body.to_string());
        assert!(refused(&keys, &new.token(&claims())).await, "{status}");
        assert_eq!(issuer.fetches(), 2, "it was asked for the new key");
        assert!(keys.verify(&key.token(&claims())).await.is_ok());
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_is_waited_for() {
    let key = SigningKey::rsa("key");
    let issuer = Issuer::start(&[&key]).await;
    issuer.answer(StatusCode::BAD_GATEWAY, String::new());
    let app = App::trusting(by_url(&issuer)).await;
    let reader = app.reader_with_token(Uuid::new_v4(), key.token(&claims()));
    let answer = reader.active().await;
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.headers.contains_key("www-authenticate"));
    assert!(answer.problem(503).contains("keys are not available yet"));
    // What no key could make good needs no key to be refused.
    let bearer = HeaderValue::from_static("Bearer x");
    assert_eq!(call(&app, bearer).await.0, 401);

    issuer.publish(&[&key]);
    until(async || reader.active().await.status == 200).await;
}

#[tokio::test]
async fn an_address_that_leads_elsewhere_is_not_followed() {
    let key = SigningKey::rsa("key");
    let issuer = Issuer::start(&[&key]).await;
    issuer.answer(StatusCode::FOUND, String::new());
    let keys = Keys::new(&by_url(&issuer)).unwrap();
    let verified = keys.verify(&key.token(&claims())).await;
    assert_eq!(verified, Err(Refusal::KeysUnavailable));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes() {
    let (old, new, later) = (
        SigningKey::rsa("old"),
        SigningKey::ed("new"),
        SigningKey::ec("later"),
    );
    let (args, file) = by_file(&[&old]);
    let keys = Keys::new(&args).unwrap();
    let known = old.token(&claims());
    assert!(keys.verify(&known).await.is_ok());
    assert!(keys.verify(&known).await.is_ok());

    // At once for a new key.
    std::fs::write(&file, set_of(&[&new]).to_string()).unwrap();
    assert!(keys.verify(&new.token(&claims())).await.is_ok());
    assert!(refused(&keys, &known).await);

    // In a while, when nobody asks.
    let good = new.token(&claims());
    std::fs::write(&file, set_of(&[&later]).to_string()).unwrap();
    until(async || refused(&keys, &good).await).await;
    assert!(keys.verify(&later.token(&claims())).await.is_ok());

    // A file that is broken or gone changes nothing.
    let keys = Keys::new(&args).unwrap();
    let good = later.token(&claims());
    assert!(keys.verify(&good).await.is_ok());
    std::fs::write(&file, "{\"keys\": [").unwrap();
    assert!(refused(&keys, &new.token(&claims())).await);
    assert!(keys.verify(&good).await.is_ok());
    let keys = Keys::new(&args).unwrap();
    assert_eq!(keys.verify(&good).await, Err(Refusal::KeysUnavailable));
    std::fs::write(&file, set_of(&[&later]).to_string()).unwrap();
    until(async || keys.verify(&good).await.is_ok()).await;
    std::fs::remove_file(&file).unwrap();
    assert!(refused(&keys, &new.token(&claims())).await);
    assert!(keys.verify(&good).await.is_ok());
}

/// Waits until something holds.
async fn until(holds: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < NOTICED, "it does not come true");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
