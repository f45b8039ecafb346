//! The hyper loop. `axum::serve` sets no timeouts and no bounds; this one sets
//! them all, and ends connections in order at a shutdown. It knows who is at
//! the other end and says so; it never looks into what they ask.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod body_timeout;
mod timeouts;

pub use body_timeout::BodyTimeout;
use timeouts::ConnectionTimeout;

/// Connections at the same time; more wait in the backlog. Bounds memory: each
/// may hold a header buffer and a body.
const MAX_CONNECTIONS: usize = 8_192;

/// Connections that may wait to be accepted; the kernel may have a lower bound.
/// Beyond that it drops what comes, and clients try again after a second at
/// the earliest.
const BACKLOG: u32 = 4_096;

/// The longest request head, in bytes, and the most headers in it.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// HTTP/2 requests at the same time on one connection.
const MAX_STREAMS: u32 = 128;

/// How often an HTTP/2 client is asked whether it is there, and how long it
/// may take to say so. Finds clients that went away, or stopped, in the middle
/// of a request.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection has to take its leave; then it is cut off.
const LEAVE: Duration = Duration::from_secs(1);

/// The pause when a connection cannot be accepted: usually there are no file
/// descriptors left, and trying at once does not make some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long clients may keep the service waiting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the head of the first request.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For the next request, its head included, and before that for the client
    /// to take the last answer. Longer than the 60 s for which proxies keep
    /// connections, so that it is they who close them, never in the moment of
    /// the next request.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(75),
        }
    }
}

/// Listens at an address, as [`TcpListener::bind`] does, but with room for all
/// clients that come back at once.
///
/// # Errors
/// The address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown`; then accepts no more, lets open requests finish
/// within `drain`, and returns.
pub async fn run(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let builder = builder();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_clients(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let builder = builder.clone();
        let router = router.clone();
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            if let Err(error) = serve(&builder, stream, peer, router, limits, shutdown).await {
                tracing::debug!(error, "a connection ended badly");
            }
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(open = connections.len(), "connections were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, place))
}

/// Whether the client had gone before it was let in; no reason to pause.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
    )
}

/// Serves one connection until it ends, keeps the service waiting for too
/// long, or the service stops.
async fn serve(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let patience = ConnectionTimeout::new(limits);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let open = patience.open();
        let mut request = request.map(|body| body_timeout::within(limits.body, body));
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            drop(open);
            answer
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut exhausted = std::pin::pin!(patience.exhausted());
    tokio::select! {
        result = connection.as_mut() => return result,
        () = exhausted.as_mut() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => return result,
                () = exhausted => {}
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(LEAVE, connection).await?
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // It would bound a head and the idle time before it alike, and not
        // begin before hyper has seen whether this is HTTP/2: `patience` does
        // better.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).expect("16 KB"))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
