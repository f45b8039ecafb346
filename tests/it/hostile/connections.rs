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
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

/// How long a valid request and a probe may take.
const LIMIT: Duration = Duration::from_secs(1);

/// Connections that are opened at the same time.
const CONCURRENCY: usize = 64;

/// A connection that has had a response and is idle.
async fn idle(process: &Process) -> TcpStream {
    answered(TcpStream::connect(process.http).await.unwrap()).await
}

/// Like [`idle`], from another address of this machine.
async fn idle_from(address: &str, process: &Process) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(format!("{address}:0").parse().unwrap())
        .unwrap();
    answered(socket.connect(process.http).await.unwrap()).await
}

async fn answered(mut stream: TcpStream) -> TcpStream {
    let request = b"GET /nothing HTTP/1.1\r\nHost: reading\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut status = [0; 9];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 ");
    stream
}

/// Whether a valid request and a probe succeed in time.
async fn is_served(process: &Process, reader: &Reader) -> bool {
    let served = async {
        let probe = client().get(format!("http://{}/readyz", process.admin));
        reader.active().await.status == 200 && probe.send().await.unwrap().status() == 200
    };
    let served = tokio::time::timeout(scaled(LIMIT), served).await;
    served.unwrap_or(false)
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

/// Without a bound for each address, one client can use up the connections of all.
const NO_BOUND_PER_ADDRESS: [(&str, &str); 1] = [("HTTP_CONNECTIONS_PER_ADDRESS", "100000")];

#[rstest]
#[case::more_than_descriptors(1_024, 1_050)]
#[case::more_than_permits(20_000, 8_300)]
#[tokio::test]
async fn idle_connections_keep_no_reader_out(
    #[case] open_file_limit: u64,
    #[case] count: usize,
    #[values(&[], &NO_BOUND_PER_ADDRESS)] settings: &[(&str, &str)],
) {
    open_files::raise_limit();
    let env = Stack::shared().await.new_env().await;
    let process = Process::start_with_open_files(&env, open_file_limit, settings).await;
    // Enough for all connections, or as much as the hard limit permits.
    let raised = open_files::soft_limit(process.pid().unwrap());
    assert!(raised >= open_file_limit.min(8_500), "{raised}");
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let _ = reader.start(Uuid::new_v4()).await.ok();
    let connections: Vec<TcpStream> = stream::iter(0..count)
        .map(|_| idle(&process))
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    for _ in 0..3 {
        assert!(is_served(&process, &reader).await);
    }
    disconnect(&app::pool(&env).await).await;
    until("the pools reconnect", Duration::from_secs(10), async || {
        reader.update(Uuid::nil(), 1.0).await.status == 404 && is_served(&process, &reader).await
    })
    .await;
    drop(connections);
    assert!(process.terminate().await.success());
}

/// Whether a connection still serves requests.
async fn is_open(mut connection: TcpStream) -> bool {
    let request = b"GET /nothing HTTP/1.1\r\nHost: reading\r\nConnection: close\r\n\r\n";
    let mut seen = Vec::new();
    let exchange = async {
        connection.write_all(request).await?;
        // First the rest of the first response.
        connection.read_to_end(&mut seen).await
    };
    let exchange = tokio::time::timeout(scaled(Duration::from_secs(10)), exchange);
    let _ = exchange.await.expect("a response or the end");
    String::from_utf8_lossy(&seen).contains("HTTP/1.1 404")
}

/// The connections of other addresses stay open, also if they wait longer.
#[tokio::test]
async fn address_with_too_many_connections_loses_those_that_wait_longest() {
    let env = Stack::shared().await.new_env().await;
    let settings = [("HTTP_CONNECTIONS_PER_ADDRESS", "5")];
    let process = Process::start_roles(&env, &["api"], &settings).await;
    let other = idle_from("127.0.0.2", &process).await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(idle(&process).await);
    }
    let newest = connections.split_off(3);
    for closed in connections {
        assert!(!is_open(closed).await);
    }
    for open in newest.into_iter().chain([other]) {
        assert!(is_open(open).await);
    }
    assert!(process.terminate().await.success());
}
