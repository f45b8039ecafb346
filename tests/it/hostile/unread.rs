//! Clients that request responses and do not receive them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use api::serve::{self, ClientTimeouts, ConnectionLimits};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures::stream;
use rstest::rstest;
use serde_json::json;
use tests::reader::id;
use tests::{App, scaled, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::http2::{END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, request};
use super::wire::CASE_TIMEOUT;
use super::{Target, address};

/// How long clients may take to receive a response.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(500);

/// The time between two requests of a client that keeps its connection in use.
const REQUEST_INTERVAL: Duration = Duration::from_millis(100);

fn timeouts() -> ClientTimeouts {
    ClientTimeouts {
        headers: RECEIVE_TIMEOUT,
        idle: RECEIVE_TIMEOUT,
        ..ClientTimeouts::default()
    }
}

#[tokio::test]
async fn client_that_reads_no_responses_is_disconnected() {
    let app =
        App::with_settings(|settings| settings.http.timeouts.idle = Duration::from_millis(200))
            .await;
    let mut stream = TcpStream::connect(address(&app)).await.unwrap();
    // Large responses, until neither side can send any more.
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: reading\r\n\r\n";
    let sending = async { while stream.write_all(request).await.is_ok() {} };
    tokio::time::timeout(scaled(CASE_TIMEOUT), sending)
        .await
        .expect("the service closes the connection");
    assert_eq!(app.reader().active().await.status, 200);
}

/// A client that lets the service send only this many bytes of each response.
struct Http2Client {
    stream: TcpStream,
    target: Target,
    next_stream: u32,
}

impl Http2Client {
    async fn connect(target: Target, window: u32) -> Self {
        const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
        let mut stream = TcpStream::connect(target.address).await.unwrap();
        let setting = [&INITIAL_WINDOW_SIZE[..], &window.to_be_bytes()].concat();
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat();
        stream.write_all(&hello).await.unwrap();
        Self {
            stream,
            target,
            next_stream: 1,
        }
    }

    async fn get(&mut self, path: &str) -> std::io::Result<()> {
        let block = request(&self.target, "GET", path);
        let headers = frame(HEADERS, END_STREAM | END_HEADERS, self.next_stream, &block);
        self.next_stream += 2;
        self.stream.write_all(&headers).await
    }

    /// Sends small requests until the service closes the connection.
    async fn keep_in_use(&mut self) {
        let closed = async {
            let mut seen = [0; 4_096];
            while self.get("/nothing").await.is_ok() {
                let read = self.stream.read(&mut seen);
                if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(REQUEST_INTERVAL, read).await {
                    break;
                }
            }
        };
        tokio::time::timeout(scaled(CASE_TIMEOUT), closed)
            .await
            .expect("the service closes the connection");
    }
}

/// Other requests do not keep the connection open: its responses would fill the memory.
#[rstest]
#[tokio::test]
async fn http2_client_that_receives_no_exports_is_disconnected(
    #[values(0, 1, 65_535)] window: u32,
) {
    let app = App::with_settings(|settings| settings.http.timeouts = timeouts()).await;
    let reader = app.reader();
    let target = Target::new(&reader, address(&app)).await;
    let session = id(&reader.active().await.ok());
    for position in 1..30 {
        let update = json!({ "current_position": position, "locator": "x".repeat(8_000) });
        let _ = reader.update_with(session, update).await.ok();
    }
    let mut client = Http2Client::connect(target, window).await;
    for _ in 0..10 {
        client.get("/api/v1/reading-sessions/export").await.unwrap();
    }
    client.keep_in_use().await;
    assert_eq!(reader.active().await.status, 200);
}

/// A part of a response body.
type Part = Vec<u8>;

/// HTTP/2 takes the last part of a body before the client permits the service to send it.
#[rstest]
#[tokio::test]
async fn unread_http2_response_is_freed(#[values(0, 1)] window: u32) {
    let parts: Arc<Mutex<Vec<Weak<Part>>>> = Arc::default();
    let router = {
        let parts = Arc::clone(&parts);
        let part = move || {
            let part = Arc::new(vec![b'x'; 100_000]);
            parts.lock().unwrap().push(Arc::downgrade(&part));
            Ok::<_, Infallible>(Bytes::from_owner(SharedPart(part)))
        };
        Router::new().route(
            "/",
            get(async move || Body::from_stream(stream::iter([part()]))),
        )
    };
    let mut client = Http2Client::connect(target(serve(router)), window).await;
    client.get("/").await.unwrap();
    let are_held = |held: bool| {
        let parts = parts.lock().unwrap();
        !parts.is_empty() && parts.iter().all(|part| (part.strong_count() > 0) == held)
    };
    until("the response is sent", CASE_TIMEOUT, async || {
        are_held(true)
    })
    .await;
    client.keep_in_use().await;
    until("the response is freed", CASE_TIMEOUT, async || {
        are_held(false)
    })
    .await;
}

struct SharedPart(Arc<Part>);

impl AsRef<[u8]> for SharedPart {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn serve(router: Router) -> SocketAddr {
    let listener = serve::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let options = serve::Options {
        timeouts: timeouts(),
        connections: ConnectionLimits::new(100, &[]),
        drain: Duration::ZERO,
    };
    tokio::spawn(serve::run(
        listener,
        router,
        options,
        CancellationToken::new(),
    ));
    address
}

fn target(address: SocketAddr) -> Target {
    Target {
        address,
        token: String::new(),
        session: Uuid::nil(),
    }
}
