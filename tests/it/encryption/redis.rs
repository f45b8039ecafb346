//! Encrypted connections to Redis.

use tests::Stack;
use tests::certificates::{Authority, Identity};
use tests::encrypted::RedisTerminator;
use tests::stack::TestEnv;

use super::{Files, assert_client_refused, assert_refused, doctor};

/// The result of `doctor` about the Redis at an address.
async fn check(env: &TestEnv, url: &str, files: Files<'_>) -> (String, String) {
    let env = TestEnv {
        redis_url: url.to_owned(),
        ..env.clone()
    };
    doctor(&env, files, "Redis").await
}

#[tokio::test]
async fn redis_of_an_unknown_authority_or_another_host_is_refused() {
    let env = Stack::shared().await.new_env().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.issue("localhost");
    let redis = RedisTerminator::start(&env.redis_url, &server, None).await;

    let trusted = [("REDIS_CA_FILE", authority.file())];
    let (state, details) = check(&env, &redis.url, &trusted).await;
    assert_eq!(state, "ok", "{details}");
    let untrusted = [("REDIS_CA_FILE", other.file())];
    for files in [&untrusted[..], &[]] {
        let refused = check(&env, &redis.url, files).await;
        assert_refused(&refused, &["UnknownIssuer", "set REDIS_CA_FILE"]);
    }

    let misnamed = authority.issue("other.example");
    let misnamed = RedisTerminator::start(&env.redis_url, &misnamed, None).await;
    let refused = check(&env, &misnamed.url, &trusted).await;
    assert_refused(
        &refused,
        &["not valid for name", "other.example", "REDIS_URL"],
    );
}

#[tokio::test]
async fn plain_client_and_encrypted_redis_fail_with_advice() {
    let env = Stack::shared().await.new_env().await;
    let authority = Authority::new();
    let server = authority.issue("localhost");
    let redis = RedisTerminator::start(&env.redis_url, &server, None).await;
    let plain = redis.url.replacen("rediss://", "redis://", 1);
    let refused = check(&env, &plain, &[]).await;
    assert_refused(&refused, &["begin REDIS_URL with rediss://"]);

    let encrypted = env.redis_url.replacen("redis://", "rediss://", 1);
    let refused = check(&env, &encrypted, &[]).await;
    assert_refused(&refused, &["does not use TLS at this address", "redis://"]);

    // A set file means that the operator expects encryption.
    let files = [("REDIS_CA_FILE", authority.file())];
    let refused = check(&env, &env.redis_url, &files).await;
    assert_refused(&refused, &["REDIS_CA_FILE is set", "rediss://"]);

    let unverified = format!("{}#insecure", redis.url);
    let refused = check(&env, &unverified, &[]).await;
    assert_refused(&refused, &["#insecure"]);
}

#[tokio::test]
async fn redis_accepts_only_a_client_certificate_of_its_authority() {
    let env = Stack::shared().await.new_env().await;
    let authority = Authority::new();
    let server = authority.issue("localhost");
    let redis = RedisTerminator::start(&env.redis_url, &server, Some(&authority)).await;
    let trusted = ("REDIS_CA_FILE", authority.file());
    let files = |client: Identity| {
        [
            trusted.clone(),
            ("REDIS_CERT_FILE", client.certificate),
            ("REDIS_KEY_FILE", client.key),
        ]
    };
    let without = [trusted.clone()];
    let without = async || check(&env, &redis.url, &without).await;
    assert_client_refused(without, "set REDIS_CERT_FILE and REDIS_KEY_FILE").await;
    let other = Authority::new();
    let untrusted = files(other.issue("app"));
    let untrusted = async || check(&env, &redis.url, &untrusted).await;
    assert_client_refused(untrusted, "does not trust the client certificate").await;

    let (state, details) = check(&env, &redis.url, &files(authority.issue("app"))).await;
    assert_eq!(state, "ok", "{details}");
}
