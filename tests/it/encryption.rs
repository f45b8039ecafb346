//! The connections to Postgres, NATS and Redis can be encrypted and verified. The
//! servers of these tests accept only encrypted connections, with certificates of an
//! authority that the test creates.

mod nats;
mod postgres;
mod redis;
mod warnings;

use std::path::PathBuf;

use serde_json::{Value, json};
use sqlx::PgPool;
use tests::app::SETTLE;
use tests::certificates::Authority;
use tests::encrypted::{EncryptedNats, RedisTerminator, encrypt_postgres};
use tests::process::{Process, command};
use tests::reader::id;
use tests::stack::TestEnv;
use tests::{Reader, Stack, app, until};
use uuid::Uuid;

/// Settings that name files.
type Files<'a> = &'a [(&'a str, PathBuf)];

/// The state and the details of one check of `doctor`.
async fn doctor(env: &TestEnv, files: Files<'_>, check: &str) -> (String, String) {
    let mut command = command(env);
    let files = files.iter().map(|(name, file)| (name, file));
    let output = command.args(["doctor", "-o", "json"]).envs(files).output();
    let output = output.await.unwrap();
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}", String::from_utf8_lossy(&output.stderr));
    });
    let mut findings = findings.as_array().unwrap().iter();
    let found = findings.find(|finding| finding["what"] == check).unwrap();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("state"), text("says"))
}

/// Checks that `doctor` cannot connect, and that its message contains each text.
#[track_caller]
fn assert_refused((state, details): &(String, String), texts: &[&str]) {
    assert_eq!(state, "failure", "{details}");
    for text in texts {
        assert!(details.contains(text), "{text} is not in: {details}");
    }
    assert!(!details.contains("s3cret"), "{details}");
}

/// Waits until `doctor` reports that it cannot connect for a reason that contains
/// `text`. A server checks a client certificate after the client has sent its first
/// command. If the server closes the connection before, the reason is a write error.
async fn assert_client_refused(check: impl AsyncFn() -> (String, String), text: &str) {
    until("the reason of the refusal", SETTLE, async || {
        let refused = check().await;
        assert_refused(&refused, &[]);
        refused.1.contains(text)
    })
    .await;
}

/// The user of the NATS servers of these tests.
fn nats_user() -> Value {
    json!({ "authorization": { "user": "app", "password": "s3cret+/=" } })
}

/// The address for [`nats_user`].
fn nats_url(scheme: &str, nats: &EncryptedNats) -> String {
    format!("{scheme}://app:s3cret+%2F=@{}", nats.address())
}

/// The address of Postgres by its host name, with parameters.
fn postgres_url(env: &TestEnv, parameters: &str) -> String {
    let url = env.database_url.replace("127.0.0.1", "localhost");
    format!("{url}?{parameters}")
}

#[tokio::test]
async fn service_and_commands_work_with_encrypted_connections_to_all_servers() {
    let stack = Stack::dedicated().await;
    let plain = stack.new_env().await;
    let authority = Authority::new();
    let server = authority.issue("localhost");
    encrypt_postgres(&stack, &server, None).await;
    let nats = EncryptedNats::start(&stack, &server, None, &nats_user()).await;
    let redis = RedisTerminator::start(&plain.redis_url, &server, None).await;
    let ca = authority.file();
    let ca = ca.to_str().unwrap();
    let env = TestEnv {
        database_url: postgres_url(&plain, &format!("sslmode=verify-full&sslrootcert={ca}")),
        nats_url: nats_url("tls", &nats),
        redis_url: redis.url.clone(),
        ..plain.clone()
    };

    let authorities = [("NATS_CA_FILE", ca), ("REDIS_CA_FILE", ca)];
    let roles = ["api", "relay", "projections", "jobs"];
    let process = Process::start_roles(&env, &roles, &authorities).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 12.5).await.ok();
    let pool = app::pool(&env).await;
    // Without encryption the test reads Redis: it waits until the cache has the events.
    app::settled(&pool, &plain).await;
    assert_eq!(id(&reader.active().await.ok()), session);
    all_connections_are_encrypted(&pool).await;

    let run = async |arguments: &[&str], code: i32| {
        let output = command(&env).args(arguments).envs(authorities).output();
        let output = output.await.unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {shown}{error}"
        );
        shown
    };
    // The test server runs without fsync, which is a failure.
    let shown = run(&["doctor"], 1).await;
    assert!(
        shown.contains("Postgres verified, NATS verified, Redis verified"),
        "{shown}"
    );
    until("the relay has published", SETTLE, async || {
        let events = run(&["doctor"], 1).await;
        events.contains("contains 2 events")
    })
    .await;
    run(
        &["events", "tail", "--from-position", "1", "--until-end"],
        0,
    )
    .await;
    run(&["verify"], 0).await;
    run(&["warm-up"], 0).await;
    assert!(process.terminate().await.success());
}

async fn all_connections_are_encrypted(pool: &PgPool) {
    let (encrypted, all): (i64, i64) = sqlx::query_as(
        "select count(*) filter (where ssl), count(*)
        from pg_stat_ssl join pg_stat_activity using (pid)
        where application_name like 'reading-sessions-%'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(encrypted, all);
    assert!(all > 0);
}
