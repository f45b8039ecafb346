//! A client with more connections than the service has permits or file descriptors for.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use rstest::rstest;
use sqlx::PgPool;
use tests::process::Process;
use tests::reader::client;
use tests::{Reader, Stack, app, open_files, scaled, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// How long a valid request and a probe may take.
const LIMIT: Duration = Duration::from_secs(1);

/// Connections that are opened at the same time.
const CONCURRENCY: usize = 64;

/// A connection that has had a response and is idle.
async fn idle(process: &Process) -> TcpStream {
    let mut stream = TcpStream::connect(process.http).await.unwrap();
    let request = b"GET /nothing HTTP/1.1\r\nHost: reading\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut status = [0; 9];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 ");
    stream
}

async fn is_served(process: &Process, reader: &Reader) {
    let served = async {
        assert_eq!(reader.active().await.status, 200);
        let probe = client().get(format!("http://{}/readyz", process.admin));
        assert_eq!(probe.send().await.unwrap().status(), 200);
    };
    tokio::time::timeout(scaled(LIMIT), served)
        .await
        .expect("a valid request and a probe are served");
}

/// Closes the service's connections to Postgres.
async fn disconnect(pool: &PgPool) {
    let closed: i64 = sqlx::query_scalar(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
            and backend_type = 'client backend'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert!(closed > 0);
}

#[rstest]
#[case::more_than_descriptors(1_024, 1_050)]
#[case::more_than_permits(20_000, 8_300)]
#[tokio::test]
async fn idle_connections_keep_no_reader_out(#[case] open_file_limit: u64, #[case] count: usize) {
    open_files::raise_limit();
    let env = Stack::shared().await.new_env().await;
    let process = Process::start_with_open_files(&env, open_file_limit).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let connections: Vec<TcpStream> = stream::iter(0..count)
        .map(|_| idle(&process))
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    for _ in 0..3 {
        is_served(&process, &reader).await;
    }
    disconnect(&app::pool(&env).await).await;
    until("the pools reconnect", Duration::from_secs(10), async || {
        reader.update(Uuid::nil(), 1.0).await.status == 404
    })
    .await;
    is_served(&process, &reader).await;
    drop(connections);
    assert!(process.terminate().await.success());
}

/// The client's own connections are closed, and not those of others.
#[tokio::test]
async fn address_with_too_many_connections_loses_those_that_are_idle_longest() {
    let env = Stack::shared().await.new_env().await;
    let settings = [("HTTP_CONNECTIONS_PER_ADDRESS", "5")];
    let process =
        Process::start_roles(&env, &["api", "relay", "projections", "jobs"], &settings).await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(idle(&process).await);
    }
    let mut rest = Vec::new();
    let closed = connections[0].read_to_end(&mut rest);
    tokio::time::timeout(scaled(Duration::from_secs(10)), closed)
        .await
        .expect("the first connection is closed")
        .unwrap();
    // The newest one still works.
    let newest = connections.last_mut().unwrap();
    let request = b"GET /nothing HTTP/1.1\r\nHost: reading\r\nConnection: close\r\n\r\n";
    newest.write_all(request).await.unwrap();
    newest.read_to_end(&mut rest).await.unwrap();
    let responses = String::from_utf8_lossy(&rest).matches("HTTP/1.1 ").count();
    assert!(responses >= 1, "{}", String::from_utf8_lossy(&rest));
    assert!(process.terminate().await.success());
}
