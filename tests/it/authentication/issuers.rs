//! Issuers that rotate their keys, are unreachable, or return invalid responses.

use std::time::Duration;

use api::auth::{TokenVerifier, VerifyError};
use axum::http::{HeaderValue, StatusCode};
use serde_json::json;
use tests::issuer::{Issuer, SigningKey, key_set};
use tests::{App, until};
use uuid::Uuid;

use super::{by_file, by_url, call, claims, claims_with, now, refused, verify};

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

    // Unpublished key ids do not cause another fetch so soon. Each could be the id of a new
    // key, so the app must not take its token for invalid.
    assert_eq!(statuses(&SigningKey::ec("unknown")).await, [503; 50]);
    let unreadable = SigningKey::ed("new");
    assert_eq!(statuses(&unreadable).await, [401; 50]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn token_with_a_bogus_key_does_not_make_new_tokens_invalid() {
    let (old, new) = (SigningKey::ec("old"), SigningKey::ec("new"));
    let issuer = Issuer::start(&[&old]).await;
    let app = App::with_auth(by_url(&issuer)).await;
    let reader = |key: &SigningKey| app.reader_with_token(Uuid::new_v4(), key.token(&claims()));
    assert_eq!(reader(&old).active().await.status, 200);
    // Its fetch is the last one for a while.
    let bogus = reader(&SigningKey::ec("bogus"));
    assert_eq!(bogus.active().await.problem_code(401), "invalid_token");
    issuer.publish(&[&old, &new]);
    // A token that has expired anyway learns so at once.
    let expired = SigningKey::ec("removed").token(&claims_with(&json!({ "exp": now() - 3_600 })));
    let expired = app
        .reader_with_token(Uuid::new_v4(), expired)
        .active()
        .await;
    assert_eq!(expired.problem_code(401), "invalid_token");
    let response = reader(&new).active().await;
    assert!(response.headers.contains_key("retry-after"));
    assert_eq!(response.problem_code(503), "keys_unavailable");
    assert_eq!(reader(&old).active().await.status, 200);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn requests_that_wait_for_a_hanging_issuer_are_limited_by_address() {
    let key = SigningKey::ec("key");
    let issuer = Issuer::start(&[&key]).await;
    let app = App::with_settings(|settings| {
        settings.auth = by_url(&issuer);
        settings.rate_limit.normal = 10.try_into().unwrap();
        settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let reader = app.reader_with_token(Uuid::new_v4(), key.token(&claims()));
    assert_eq!(reader.active().await.status, 200);
    issuer.respond_after(Duration::from_mins(1));

    let bogus = SigningKey::ec("bogus").token(&claims());
    let call_from = async |address: &str| {
        let request = app.client.get(format!("{}/active", app.url));
        let request = request.bearer_auth(&bogus);
        let request = request.header("x-forwarded-for", address);
        request.send().await.unwrap().status().as_u16()
    };
    let calls = (0..40).map(async |_| call_from("203.0.113.7").await);
    let flood = futures::future::join_all(calls);
    let readers = async {
        until("the address is limited", DETECTION_TIMEOUT, async || {
            call_from("203.0.113.7").await == 429
        })
        .await;
        // Valid tokens need no newer keys.
        assert_eq!(reader.active().await.status, 200);
    };
    let (statuses, ()) = futures::join!(flood, readers);
    let count = |status: u16| statuses.iter().filter(|one| **one == status).count();
    assert!(count(503) <= 10, "{statuses:?}");
    assert_eq!(count(503) + count(429), 40, "{statuses:?}");
    assert_eq!(call_from("203.0.113.8").await, 503);
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
        assert!(verify(&verifier, &key.token(&claims())).await.is_ok());
        issuer.respond_with(status, body.to_string());
        let result = verify(&verifier, &new.token(&claims())).await;
        assert_eq!(result, Err(VerifyError::KeysUnavailable), "{status}");
        assert_eq!(issuer.fetches(), 2, "the new key causes a fetch");
        assert!(verify(&verifier, &key.token(&claims())).await.is_ok());
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
    let result = verify(&verifier, &key.token(&claims())).await;
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
    assert!(verify(&verifier, &cached).await.is_ok());
    assert!(verify(&verifier, &cached).await.is_ok());

    // A token with a new key triggers a read at once.
    std::fs::write(&file, key_set(&[&new]).to_string()).unwrap();
    assert!(verify(&verifier, &new.token(&claims())).await.is_ok());
    assert!(refused(&verifier, &cached).await);

    // Without such a token, the file is read again periodically.
    let good = new.token(&claims());
    std::fs::write(&file, key_set(&[&later]).to_string()).unwrap();
    until("the old key is rejected", DETECTION_TIMEOUT, async || {
        refused(&verifier, &good).await
    })
    .await;
    assert!(verify(&verifier, &later.token(&claims())).await.is_ok());

    // A broken or missing file changes nothing.
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    let good = later.token(&claims());
    assert!(verify(&verifier, &good).await.is_ok());
    std::fs::write(&file, "{\"keys\": [").unwrap();
    let unknown = Err(VerifyError::KeysUnavailable);
    assert_eq!(verify(&verifier, &new.token(&claims())).await, unknown);
    assert!(verify(&verifier, &good).await.is_ok());
    let verifier = TokenVerifier::new(&args.settings().unwrap()).unwrap();
    assert_eq!(
        verify(&verifier, &good).await,
        Err(VerifyError::KeysUnavailable)
    );
    std::fs::write(&file, key_set(&[&later]).to_string()).unwrap();
    until("the repaired file is read", DETECTION_TIMEOUT, async || {
        verify(&verifier, &good).await.is_ok()
    })
    .await;
    std::fs::remove_file(&file).unwrap();
    assert_eq!(verify(&verifier, &new.token(&claims())).await, unknown);
    assert!(verify(&verifier, &good).await.is_ok());
}
