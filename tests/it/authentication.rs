//! Authentication: every kind of key, every kind of forged token, and issuers
//! that rotate their keys, are unreachable, or return invalid responses.

mod issuers;
mod readers;
mod subjects;
mod tokens;

use api::auth::{Caller, TokenVerifier, VerifyError};
use api::secret::Secret;
use axum::http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use server::config::AuthArgs;
use tests::App;
use tests::issuer::{Issuer, SigningKey, key_set};
use uuid::Uuid;

fn now() -> i64 {
    eventlog::clock::now().timestamp()
}

/// The claims of a valid token.
fn claims() -> Value {
    json!({ "sub": Uuid::new_v4(), "exp": now() + 600, "type": "access" })
}

/// Valid claims with some members changed; a `null` removes the member.
fn claims_with(changes: &Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// Settings that accept tokens of any issuer for any audience.
fn any_claims() -> AuthArgs {
    AuthArgs {
        jwt_issuer: Some("*".to_owned()),
        jwt_audience: Some("*".to_owned()),
        ..AuthArgs::default()
    }
}

fn by_url(issuer: &Issuer) -> AuthArgs {
    AuthArgs {
        jwks_url: Some(Secret::from(issuer.url.clone())),
        ..any_claims()
    }
}

/// Settings that read these keys from a file.
fn by_file(keys: &[&SigningKey]) -> (AuthArgs, std::path::PathBuf) {
    let file = std::env::temp_dir().join(format!("jwks-{}.json", Uuid::new_v4()));
    std::fs::write(&file, key_set(keys).to_string()).unwrap();
    let args = AuthArgs {
        jwks_file: Some(file.clone()),
        ..any_claims()
    };
    (args, file)
}

/// Verifies a token as the service does: if its key is unknown, with a newer key set.
async fn verify(verifier: &TokenVerifier, token: &str) -> Result<Caller, VerifyError> {
    match verifier.verify(token) {
        Err(VerifyError::UnknownKey) => verifier.verify_after_refresh(token).await,
        result => result,
    }
}

async fn refused(verifier: &TokenVerifier, token: &str) -> bool {
    verify(verifier, token).await == Err(VerifyError::InvalidToken)
}

/// Sends a query with this `Authorization` header.
async fn call(app: &App, authorization: HeaderValue) -> (StatusCode, Value) {
    let response = app
        .client
        .get(format!("{}/active", app.url))
        .header("authorization", authorization)
        .send()
        .await
        .unwrap();
    let status = response.status();
    if status == 401 {
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    (status, response.json().await.unwrap())
}
