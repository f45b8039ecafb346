//! Real servers: what faults leave behind, and what they do not.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use sqlx::{Connection, Executor, PgConnection, Row};

use super::{Options, Server, Servers, processes, scratch_data};

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

/// Addresses and processes.
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
async fn servers_come_back_after_a_kill_at_the_same_address_with_their_data() {
    let data = scratch_data().unwrap();
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
async fn a_paused_server_is_silent_and_then_goes_on() {
    let data = scratch_data().unwrap();
    let servers = Servers::start(options(&data)).await.unwrap();
    let mut connection = PgConnection::connect(servers.database_url()).await.unwrap();

    servers.postgres.pause().unwrap();
    let silence = Duration::from_millis(200);
    tokio::time::timeout(silence, connection.execute("select 1"))
        .await
        .unwrap_err();
    servers.postgres.resume().unwrap();
    let mut connection = PgConnection::connect(servers.database_url()).await.unwrap();
    connection.execute("select 1").await.unwrap();

    // A frozen server is stopped and killed like any other.
    servers.redis.pause().unwrap();
    servers.stop().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test]
async fn data_and_addresses_survive_a_restart_and_one_supervisor_holds_a_folder() {
    let data = scratch_data().unwrap();
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
        "dropped servers end"
    );

    let servers = Servers::start(options(&data)).await.unwrap();
    assert_eq!(state(&servers).map(|(url, _)| url), before);
    servers.stop().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test]
async fn a_server_killed_from_outside_is_noticed_and_started_again() {
    let data = scratch_data().unwrap();
    let mut servers = Servers::start(options(&data)).await.unwrap();

    let pid = servers.postgres.pid().unwrap();
    processes::signal(pid, rustix::process::Signal::KILL);
    let death = tokio::time::timeout(Duration::from_secs(5), servers.watch())
        .await
        .unwrap();
    assert!(death.to_string().starts_with("Postgres ended"), "{death}");
    servers.postgres.start().await.unwrap();
    PgConnection::connect(servers.database_url()).await.unwrap();

    servers.stop().await.unwrap();
    std::fs::remove_dir_all(data).unwrap();
}

#[tokio::test]
async fn a_server_given_by_its_address_is_left_alone() {
    let mut server = Server::given(super::Kind::Nats, "nats://elsewhere:4222".to_owned());
    server.start().await.unwrap();
    server.stop().await.unwrap();
    let error = server.kill().unwrap_err();
    assert!(error.to_string().contains("not ours"), "{error}");
}
