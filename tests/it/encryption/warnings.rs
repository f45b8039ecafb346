//! Warnings about connections that leave the machine without encryption.

use tests::process::executable;
use tokio::process::Command;

/// The log of a service whose servers do not exist.
async fn log(settings: &[(&str, &str)]) -> String {
    let mut serve = Command::new(executable());
    serve
        .args(["serve", "--admin-addr", "127.0.0.1:0"])
        .envs(settings.iter().copied())
        .env("JWT_SECRET", tests::app::SECRET)
        .env("RUST_LOG", "warn");
    let output = serve.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn each_remote_server_without_verified_encryption_is_logged_once() {
    let log = log(&[
        ("DATABASE_URL", "postgres://app:s3cret@db.invalid/reading"),
        (
            "DATABASE_READ_URL",
            "postgres://app@replica.invalid/reading?sslmode=require",
        ),
        ("NATS_URL", "nats://app:s3cret@nats.invalid:4222"),
        ("REDIS_URL", "redis://:s3cret@cache.invalid:6379/0"),
    ])
    .await;
    for (address, advice) in [
        ("db.invalid:5432", "sslmode=verify-full in DATABASE_URL"),
        (
            "replica.invalid:5432",
            "sslmode=verify-full in DATABASE_READ_URL",
        ),
        ("nats.invalid:4222", "NATS_URL with tls://"),
        ("cache.invalid:6379", "REDIS_URL with rediss://"),
    ] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(advice)).collect();
        assert_eq!(lines.len(), 1, "{advice}: {log}");
        assert!(lines[0].contains("WARN"), "{log}");
        assert!(lines[0].contains(address), "{log}");
    }
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn encrypted_and_local_servers_are_not_logged() {
    let log = log(&[
        (
            "DATABASE_URL",
            "postgres://app@db.invalid/reading?sslmode=verify-full",
        ),
        ("DATABASE_READ_URL", "postgres://app@localhost/reading"),
        ("NATS_URL", "tls://nats.invalid:4222"),
        ("REDIS_URL", "rediss://cache.invalid:6379/0"),
    ])
    .await;
    assert!(!log.contains("the connection to"), "{log}");
}
