//! Encrypted connections to NATS, and credentials files.

use tests::Stack;
use tests::certificates::{Authority, Identity};
use tests::encrypted::EncryptedNats;
use tests::nats_credentials::Operator;
use tests::proxy::unused_address;
use tests::stack::TestEnv;

use super::{Files, assert_client_refused, assert_refused, doctor, nats_url, nats_user};

/// The result of `doctor` about the NATS at an address.
async fn check(env: &TestEnv, url: &str, files: Files<'_>) -> (String, String) {
    let env = TestEnv {
        nats_url: url.to_owned(),
        ..env.clone()
    };
    doctor(&env, files, "NATS").await
}

#[tokio::test]
async fn nats_of_an_unknown_authority_or_another_host_is_refused() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.issue("localhost");
    let nats = EncryptedNats::start(&stack, &server, None, &nats_user()).await;

    let trusted = [("NATS_CA_FILE", authority.file())];
    let untrusted = [("NATS_CA_FILE", other.file())];
    // The client encrypts also without `tls://`, because the server requires it.
    for scheme in ["tls", "nats"] {
        let url = nats_url(scheme, &nats);
        let (state, details) = check(&env, &url, &trusted).await;
        assert_eq!(state, "ok", "{details}");
        for files in [&untrusted[..], &[]] {
            let refused = check(&env, &url, files).await;
            assert_refused(&refused, &["UnknownIssuer", "set NATS_CA_FILE"]);
        }
    }

    let misnamed = authority.issue("other.example");
    let misnamed = EncryptedNats::start(&stack, &misnamed, None, &nats_user()).await;
    let refused = check(&env, &nats_url("tls", &misnamed), &trusted).await;
    assert_refused(
        &refused,
        &["not valid for name", "other.example", "NATS_URL"],
    );
}

#[tokio::test]
async fn nats_without_tls_is_refused_if_a_setting_requires_it() {
    let env = Stack::shared().await.new_env().await;
    let authority = Authority::new();
    let encrypted = env.nats_url.replacen("nats://", "tls://", 1);
    let refused = check(&env, &encrypted, &[]).await;
    assert_refused(&refused, &["does not use TLS", "nats://"]);
    let files = [("NATS_CA_FILE", authority.file())];
    let refused = check(&env, &env.nats_url, &files).await;
    assert_refused(&refused, &["does not use TLS", "remove NATS_CA_FILE"]);
}

#[tokio::test]
async fn nats_accepts_only_a_client_certificate_of_its_authority() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let authority = Authority::new();
    let server = authority.issue("localhost");
    let nats = EncryptedNats::start(&stack, &server, Some(&authority), &nats_user()).await;
    let url = nats_url("tls", &nats);
    let trusted = ("NATS_CA_FILE", authority.file());
    let files = |client: Identity| {
        [
            trusted.clone(),
            ("NATS_CERT_FILE", client.certificate),
            ("NATS_KEY_FILE", client.key),
        ]
    };
    let without = [trusted.clone()];
    let without = async || check(&env, &url, &without).await;
    assert_client_refused(without, "set NATS_CERT_FILE and NATS_KEY_FILE").await;
    let other = Authority::new();
    let untrusted = files(other.issue("app"));
    let untrusted = async || check(&env, &url, &untrusted).await;
    assert_client_refused(untrusted, "does not trust the client certificate").await;

    let (state, details) = check(&env, &url, &files(authority.issue("app"))).await;
    assert_eq!(state, "ok", "{details}");
}

#[tokio::test]
async fn client_uses_another_address_if_one_is_unreachable() {
    let env = Stack::shared().await.new_env().await;
    let unreachable = unused_address().await;
    // The client tries the addresses in random order.
    for url in [
        format!("nats://{unreachable},{}", env.nats_url),
        format!("{},nats://{unreachable}", env.nats_url),
    ] {
        let (state, details) = check(&env, &url, &[]).await;
        assert_eq!(state, "ok", "{details}");
    }
}

#[tokio::test]
async fn credentials_file_identifies_the_user() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let authority = Authority::new();
    let (operator, other) = (Operator::new(), Operator::new());
    let server = authority.issue("localhost");
    let nats = EncryptedNats::start(&stack, &server, None, &operator.settings()).await;
    let url = format!("tls://{}", nats.address());
    let trusted = ("NATS_CA_FILE", authority.file());
    let with = |operator: &Operator, name: &str| {
        let file = authority.file().with_file_name(name);
        std::fs::write(&file, operator.credentials()).unwrap();
        [trusted.clone(), ("NATS_CREDS", file)]
    };

    let (state, details) = check(&env, &url, &with(&operator, "app.creds")).await;
    assert_eq!(state, "ok", "{details}");
    let refused = check(&env, &url, &with(&other, "other.creds")).await;
    assert_refused(&refused, &["authorization violation"]);
    let refused = check(&env, &url, std::slice::from_ref(&trusted)).await;
    assert_refused(&refused, &["authorization violation"]);
    let missing = authority.file().with_file_name("missing.creds");
    let refused = check(&env, &url, &[trusted, ("NATS_CREDS", missing)]).await;
    assert_refused(&refused, &["cannot read", "missing.creds (NATS_CREDS)"]);
}
