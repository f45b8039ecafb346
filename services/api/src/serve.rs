//! Accepts connections and serves them with hyper. Unlike `axum::serve`, this
//! limits connections, headers and times, and closes connections gracefully at
//! shutdown. It adds the address of the peer to requests, and reads no content.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod body_timeout;
mod open_connections;
mod response_body;
mod timeouts;

pub use body_timeout::BodyTimeout;
pub use open_connections::ConnectionLimits;
use open_connections::{OpenConnection, OpenConnections};
use response_body::GuardedBody;
use timeouts::ConnectionTimeout;

/// Connections that may wait to be accepted; the kernel may have a lower limit. The
/// kernel drops further connects, and their clients retry after at least one
/// second.
const BACKLOG: u32 = 4_096;

/// The size limit of all headers of a request, in bytes.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The number of headers that a request may have.
const MAX_HEADERS: usize = 64;

/// Concurrent HTTP/2 requests per connection.
const MAX_STREAMS: u32 = 128;

/// The interval of HTTP/2 pings. They detect clients that disappear or stall in
/// the middle of a request.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long a client may take to respond to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a graceful close of a connection may take; then the connection is
/// aborted.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after a failed accept. The usual cause is that no file descriptor is
/// free, so an immediate retry would fail too.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long clients may keep the service waiting.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimeouts {
    /// The time limit for the headers of the first request.
    pub headers: Duration,
    /// The time limit for the body of each request.
    pub body: Duration,
    /// The time limit from one response until the headers of the next request have
    /// arrived. Also the time limit for the client to receive a response.
    ///
    /// It is longer than the 60 s for which proxies usually keep idle connections.
    /// The proxy then closes the connection; if the service did, it could close it
    /// while the next request is on its way.
    pub idle: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        }
    }
}

/// How a listener serves its clients.
#[derive(Clone, Debug)]
pub struct Options {
    pub timeouts: ClientTimeouts,
    pub connections: ConnectionLimits,
    /// How long open requests may take after the shutdown.
    pub drain: Duration,
}

/// Like [`TcpListener::bind`], but with a backlog that is long enough for all
/// clients that reconnect after a restart.
///
/// # Errors
/// Fails if the address is in use or not available on this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` is cancelled. It then accepts no more connections, waits for
/// open requests, and returns.
///
/// The future is boxed so that it is compiled in this crate, and not in each
/// executable.
#[must_use]
pub fn run(
    listener: TcpListener,
    router: Router,
    options: Options,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    accept_until_shutdown(listener, router, options, shutdown).boxed()
}

async fn accept_until_shutdown(
    listener: TcpListener,
    router: Router,
    options: Options,
    shutdown: CancellationToken,
) {
    let Options {
        timeouts,
        connections: limits,
        drain,
    } = options;
    let tasks = TaskTracker::new();
    let connections = Arc::new(OpenConnections::new(limits));
    let builder = builder();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_client_error(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed: {error}; retrying");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            }
        };
        let timeout = ConnectionTimeout::new(timeouts);
        let Some(connection) = connections.open(peer.ip(), timeout, permit) else {
            tracing::debug!(%peer, "connection refused: its address has too many");
            continue;
        };
        let builder = builder.clone();
        let router = router.clone();
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            let (body, open) = (timeouts.body, &connection);
            let served = serve(&builder, stream, peer, router, body, open, &shutdown);
            if let Err(error) = served.await {
                tracing::debug!(error, "connection failed: {error}");
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        let open = tasks.len();
        tracing::warn!(
            open,
            "shutdown aborted {open} connections that were still in use"
        );
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &OpenConnections,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = connections.permit().await;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

/// Whether the client disconnected before its connection was accepted. The accept
/// loop then continues without a pause.
fn is_client_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
    )
}

/// Serves one connection until the client closes it, a timeout expires, it must make room
/// for another one, or the service shuts down.
async fn serve(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    body_timeout: Duration,
    open: &OpenConnection,
    shutdown: &CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let OpenConnection { timeout, close, .. } = open;
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut guard = timeout.begin_request();
        let mut request = request.map(|body| body_timeout::with_timeout(body_timeout, body));
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = router.call(request);
        async move {
            let response = response.await?;
            guard.respond();
            Ok::<_, Infallible>(response.map(|body| GuardedBody::new(body, guard)))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let must_close = async {
        tokio::select! {
            () = timeout.expired() => {}
            () = close.cancelled() => {}
        }
    };
    let mut must_close = std::pin::pin!(must_close);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = must_close.as_mut() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => return result,
                () = must_close => {}
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(CLOSE_TIMEOUT, connection).await?
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper's own timeout has one value for the headers and the idle time
        // before them, and starts only after hyper has detected the HTTP version.
        // `ConnectionTimeout` replaces it.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).expect("16 KB fit into u32"))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
