//! A TCP proxy that can drop all traffic without closing connections, as if a
//! router between client and server had failed, or delay the answers of the server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A proxy in front of a Postgres or Redis server.
pub struct Proxy {
    /// The URL of the server through this proxy.
    pub url: String,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// Starts a proxy for the server in `url`. It runs until the test ends.
    pub async fn start(url: &str) -> Self {
        Self::start_delayed(url, Duration::ZERO).await
    }

    /// Starts a proxy that forwards each answer of the server after a delay. The delays of
    /// answers to different requests overlap.
    pub async fn start_delayed(url: &str, delay: Duration) -> Self {
        let (front, rest) = url.rsplit_once('@').expect("a URL with a user");
        let (server, database) = rest.split_once('/').expect("a URL with a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = watch::Sender::new(false);
        tokio::spawn(forward(listener, server.to_owned(), delay, cut.subscribe()));
        Self {
            url: format!("{front}@127.0.0.1:{port}/{database}"),
            cut,
        }
    }

    /// Stops forwarding. Connections that are open now, or that open before
    /// [`Proxy::restore`], never receive anything again.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Forwards the traffic of new connections again.
    pub fn restore(&self) {
        self.cut.send_replace(false);
    }
}

async fn forward(
    listener: TcpListener,
    server: String,
    delay: Duration,
    cut: watch::Receiver<bool>,
) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let mut cut = cut.clone();
        let server = server.clone();
        tokio::spawn(async move {
            // If the server is down, dropping the client's connection closes it.
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let cut = async { drop(cut.wait_for(|cut| *cut).await) };
            let is_cut = tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_server) => false,
                () = forward_delayed(&mut from_server, &mut to_client, delay) => false,
                () = cut => true,
            };
            if is_cut {
                // Both connections stay open, and neither is read.
                std::future::pending::<()>().await;
            }
        });
    }
}

/// Forwards what the server sends, each part after the delay, until the server closes or
/// the client has gone.
async fn forward_delayed(server: &mut OwnedReadHalf, client: &mut OwnedWriteHalf, delay: Duration) {
    let (sender, mut parts) = mpsc::unbounded_channel();
    let read = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = server.read(&mut buffer).await {
            let _ = sender.send((Instant::now() + delay, buffer[..count].to_vec()));
        }
        // `write` ends after the last part.
        drop(sender);
        std::future::pending::<()>().await;
    };
    let write = async {
        while let Some((at, part)) = parts.recv().await {
            tokio::time::sleep_until(at).await;
            if client.write_all(&part).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

/// A loopback address without a listener.
pub async fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
