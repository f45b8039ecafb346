//! Who may call: every kind of key, every way to pretend, and issuers that
//! change their keys, are away, or answer nonsense.

mod issuers;
mod readers;
mod tokens;

use axum::http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use services::api::auth::{Keys, Refusal};
use services::config::{AuthArgs, Secret};
use tests::App;
use tests::issuer::{Issuer, SigningKey, set_of};
use uuid::Uuid;

fn now() -> i64 {
    services::clock::now().timestamp()
}

/// What a good token says.
fn claims() -> Value {
    json!({ "sub": Uuid::new_v4(), "exp": now() + 600, "type": "access" })
}

/// Good claims with some members changed; those that are null go away.
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

fn by_url(issuer: &Issuer) -> AuthArgs {
    AuthArgs {
        jwks_url: Some(Secret::from(issuer.url.clone())),
        ..AuthArgs::default()
    }
}

/// Keys from a file that holds these.
fn by_file(keys: &[&SigningKey]) -> (AuthArgs, std::path::PathBuf) {
    let file = std::env::temp_dir().join(format!("jwks-{}.json", Uuid::new_v4()));
    std::fs::write(&file, set_of(keys).to_string()).unwrap();
    let args = AuthArgs {
        jwks_file: Some(file.clone()),
        ..AuthArgs::default()
    };
    (args, file)
}

async fn refused(keys: &Keys, token: &str) -> bool {
    keys.verify(token).await == Err(Refusal::Invalid)
}

/// The answer to a query with any header.
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
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    (status, response.json().await.unwrap())
}
