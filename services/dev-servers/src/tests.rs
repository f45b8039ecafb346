//! Tests with real servers that are killed, paused, wiped and restarted.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use sqlx::{Connection, Executor, PgConnection, Row};

use super::{Options, Server, Servers, processes, scratch_data_dir};

fn options(data: &Path) -> Options {
    let data = data.to_owned();
    Options {
        data,
        fsync: false,
        offline: false,
        postgres: None,
        nats: None,
        redis: None,
    }
}

/// The address and the pid of each server.
fn state(servers: &Servers) -> [(String, Option<u32>); 3] {
    [&servers.postgres, &servers.nats, &servers.redis]
        .map(|server| (server.url().to_owned(), server.pid()))
}

async fn redis_ping(url: &str) -> String {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("PING")
        .query_async(&mut connection)
        .await
        .unwrap()
}

async fn jetstream(url: &str) -> async_nats::jetstream::Context {
    let address = ServerAddr::from_str(url).unwrap();
    let user = address.username().unwrap().to_owned();
    let password = address.password().unwrap().to_owned();
    let options = ConnectOptions::with_user_and_password(user, password);
    async_nats::jetstream::new(options.connect(address).await.unwrap())
}

async fn streams(url: &str) -> usize {
    jetstream(url).await.query_account().await.unwrap().streams
}

#[tokio::test]
async fn killed_server_restarts_with_its_address_and_data() {
    let data = scratch_data_dir().unwrap();
    let mut servers = Servers::start(options(&data)).await.unwrap();
    let before = state(&servers);

    let mut connection = PgConnection::connect(servers.database_url()).await.unwrap();
    connection
        .execute("create table kept (value text)")
        .await
        .unwrap();
    connection
        .execute("insert into kept values ('confirmed')")
        .await
        .unwrap();
    jetstream(servers.nats_url())
        .await
        .create_stream("KEPT")
        .await
        .unwrap();

    for server in [&mut servers.postgres, &mut servers.nats, &mut servers.redis] {
        let pid = server.pid().unwrap();
        let children = processes::children(pid);
        server.kill().unwrap();
        assert_eq!(server.pid(), None);
        assert!(processes::wait_until_gone(
            &[vec![pid], children].concat(),
            Duration::ZERO
        ));
        server.start().await.unwrap();
    }

    let after = state(&servers);
    for ((url_before, pid_before), (url_after, pid_after)) in before.into_iter().zip(after) {
        assert_eq!(url_before, url_after);
        assert_ne!(pid_before, pid_after);
    }
    let mut connection = PgConnection::connect(servers.database_url()).await.unwrap();
    let row = connection
        .fetch_one("select value from kept")
        .await
        .unwrap();
    assert_eq!(row.get::<String, _>(0), "confirmed");
    assert_eq!(streams(servers.nats_url()).await, 1);
    assert_eq!(redis_ping(servers.redis_url()).await, "PONG");

    servers.nats.wipe().await.unwrap();
    assert_eq!(streams(servers.nats_url()).await, 0);
    servers.postgres.wipe().await.unwrap();
    let mut connection = PgConnection::connect(servers.database_url()).await.unwrap();
    connection
        .execute("select value from kept")
        .await
        .unwrap_err();

    servers.stop().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test]
async fn paused_server_does_not_respond_until_resumed() {
    let data = scratch_data_dir().unwrap();
    let servers = Servers::start(options(&data)).await.unwrap();
    let mut connection = PgConnection::connect(servers.database_url()).await.unwrap();

    servers.postgres.pause().unwrap();
    let timeout = Duration::from_millis(200);
    tokio::time::timeout(timeout, connection.execute("select 1"))
        .await
        .unwrap_err();
    servers.postgres.resume().unwrap();
    let mut connection = PgConnection::connect(servers.database_url()).await.unwrap();
    connection.execute("select 1").await.unwrap();

    // A paused server can be stopped.
    servers.redis.pause().unwrap();
    servers.stop().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test]
async fn data_directory_is_locked_and_keeps_the_addresses() {
    let data = scratch_data_dir().unwrap();
    let servers = Servers::start(options(&data)).await.unwrap();
    let before = state(&servers).map(|(url, _)| url);

    let second = Servers::start(options(&data)).await.unwrap_err();
    assert!(
        second.to_string().contains(data.to_str().unwrap()),
        "{second}"
    );

    let pids = state(&servers).map(|(_, pid)| pid.unwrap());
    drop(servers);
    assert!(
        processes::wait_until_gone(&pids, Duration::ZERO),
        "dropped servers exit"
    );

    let servers = Servers::start(options(&data)).await.unwrap();
    assert_eq!(state(&servers).map(|(url, _)| url), before);
    servers.stop().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test]
async fn links_in_a_data_folder_are_refused_before_a_server_starts() {
    let elsewhere = scratch_data_dir().unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    for server in ["postgres", "nats", "redis"] {
        let data = scratch_data_dir().unwrap();
        drop(super::data_dir::DataDir::lock(&data).unwrap());
        std::os::unix::fs::symlink(&elsewhere, data.join(server)).unwrap();
        let error = Servers::start(options(&data)).await.unwrap_err();
        assert!(
            format!("{error:#}").contains(&format!("{server}: it is a symbolic link")),
            "{error:#}"
        );
        std::fs::remove_dir_all(data).unwrap();
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    std::fs::remove_dir_all(elsewhere).unwrap();
}

/// Under root, Postgres runs as another user. Postgres must not be able to replace a file
/// that root opens or changes.
#[tokio::test]
async fn only_this_user_can_change_the_folder_of_a_server() {
    use std::os::unix::fs::MetadataExt;

    let data = scratch_data_dir().unwrap();
    let servers = Servers::start(options(&data)).await.unwrap();
    let own = rustix::process::geteuid().as_raw();
    for server in [&servers.postgres, &servers.nats, &servers.redis] {
        let dir = server.dir().unwrap();
        let metadata = std::fs::metadata(dir).unwrap();
        assert_eq!(metadata.uid(), own, "{}", dir.display());
        assert_eq!(metadata.mode() & 0o022, 0, "{}", dir.display());
        for secret in ["password", "log", "pid", "port"] {
            let file = std::fs::symlink_metadata(dir.join(secret)).unwrap();
            assert_eq!(file.mode() & 0o077, 0, "{} {secret}", dir.display());
        }
    }
    servers.stop().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test]
async fn server_killed_by_another_process_is_reported() {
    let data = scratch_data_dir().unwrap();
    let mut servers = Servers::start(options(&data)).await.unwrap();

    let pid = servers.postgres.pid().unwrap();
    processes::signal(pid, rustix::process::Signal::KILL);
    let error = tokio::time::timeout(Duration::from_secs(5), servers.watch())
        .await
        .unwrap();
    assert!(
        error
            .to_string()
            .starts_with("Postgres exited unexpectedly"),
        "{error}"
    );
    servers.postgres.start().await.unwrap();
    PgConnection::connect(servers.database_url()).await.unwrap();

    servers.stop().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test]
async fn external_server_is_never_stopped_or_killed() {
    let mut server = Server::external(super::ServerKind::Nats, "nats://elsewhere:4222".to_owned());
    server.start().await.unwrap();
    server.stop().await.unwrap();
    let error = server.kill().unwrap_err();
    assert!(error.to_string().contains("external"), "{error}");
}
