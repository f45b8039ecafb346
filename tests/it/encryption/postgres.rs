//! Encrypted connections to Postgres.

use tests::Stack;
use tests::certificates::{Authority, Identity};
use tests::encrypted::encrypt_postgres;
use tests::process::{command, executable};
use tests::stack::TestEnv;

use super::{assert_client_refused, assert_refused, doctor, postgres_url};

/// The environment with parameters in the address of Postgres.
fn with(env: &TestEnv, parameters: &str) -> TestEnv {
    TestEnv {
        database_url: postgres_url(env, parameters),
        ..env.clone()
    }
}

/// The result of `doctor` about Postgres.
async fn check(env: &TestEnv, parameters: &str) -> (String, String) {
    doctor(&with(env, parameters), &[], "Postgres").await
}

#[tokio::test]
async fn postgres_of_an_unknown_authority_or_another_host_is_refused() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let (authority, other) = (Authority::new(), Authority::new());
    encrypt_postgres(&stack, &authority.issue("localhost"), None).await;
    let verified = |authority: &Authority| {
        let file = authority.file();
        format!("sslmode=verify-full&sslrootcert={}", file.display())
    };

    // The only failure is that the test server runs without fsync.
    let (_, details) = check(&env, &verified(&authority)).await;
    assert!(details.starts_with("fsync is off"), "{details}");
    for parameters in [verified(&other), "sslmode=verify-full".to_owned()] {
        let refused = check(&env, &parameters).await;
        assert_refused(&refused, &["UnknownIssuer", "set sslrootcert"]);
    }
    // The service refuses too, at once and with the cause.
    let mut serve = command(&with(&env, &verified(&other)));
    let output = serve
        .args(["serve", "--admin-addr", "127.0.0.1:0"])
        .output();
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("UnknownIssuer"), "{error}");

    let refused = check(&env, "sslmode=disable").await;
    assert_refused(&refused, &["no encryption", "set sslmode=verify-full"]);

    encrypt_postgres(&stack, &authority.issue("other.example"), None).await;
    let refused = check(&env, &verified(&authority)).await;
    assert_refused(
        &refused,
        &["not valid for name", "other.example", "DATABASE_URL"],
    );
}

#[tokio::test]
async fn postgres_accepts_only_a_client_certificate_of_its_authority() {
    let stack = Stack::dedicated().await;
    let env = stack.new_env().await;
    let authority = Authority::new();
    encrypt_postgres(&stack, &authority.issue("localhost"), Some(&authority)).await;
    let server = format!(
        "sslmode=verify-full&sslrootcert={}",
        authority.file().display()
    );
    let with_client = |client: &Identity| {
        let (certificate, key) = (client.certificate.display(), client.key.display());
        format!("{server}&sslcert={certificate}&sslkey={key}")
    };

    let refused = check(&env, &server).await;
    assert_refused(&refused, &["client certificate", "set sslcert and sslkey"]);
    let other = Authority::new();
    let untrusted = with_client(&other.issue("app"));
    let untrusted = async || check(&env, &untrusted).await;
    assert_client_refused(untrusted, "does not trust the client certificate").await;

    let (_, details) = check(&env, &with_client(&authority.issue("app"))).await;
    assert!(details.starts_with("fsync is off"), "{details}");
}

#[tokio::test]
async fn postgres_without_tls_is_refused_if_the_address_requires_it() {
    let env = Stack::shared().await.new_env().await;
    let refused = check(&env, "sslmode=verify-full").await;
    assert_refused(&refused, &["does not support TLS", "enable TLS there"]);
}

#[tokio::test]
async fn missing_file_is_named_in_the_error() {
    let url = "postgres://app@localhost/reading?sslmode=verify-full&sslrootcert=/none/ca.pem";
    let mut migrate = tokio::process::Command::new(executable());
    migrate.arg("migrate").env("DATABASE_URL", url);
    let output = migrate.output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("/none/ca.pem (sslrootcert)"), "{error}");
}
