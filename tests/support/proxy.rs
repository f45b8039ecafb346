//! A TCP proxy that can drop all traffic without closing connections, as if a
//! router between client and server had failed.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy in front of a Postgres server.
pub struct Proxy {
    /// The URL of the server through this proxy.
    pub url: String,
    cut: watch::Sender<bool>,
}

impl Proxy {
    /// Starts a proxy for the server in `url`. It runs until the test ends.
    pub async fn start(url: &str) -> Self {
        let (front, rest) = url.rsplit_once('@').expect("a URL with a user");
        let (server, database) = rest.split_once('/').expect("a URL with a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = watch::Sender::new(false);
        tokio::spawn(forward(listener, server.to_owned(), cut.subscribe()));
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

async fn forward(listener: TcpListener, server: String, cut: watch::Receiver<bool>) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut cut = cut.clone();
        let server = server.clone();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(server).await.unwrap();
            let cut = async { drop(cut.wait_for(|cut| *cut).await) };
            let is_cut = tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => false,
                () = cut => true,
            };
            if is_cut {
                // Both connections stay open, and neither is read.
                std::future::pending::<()>().await;
            }
        });
    }
}

/// A loopback address without a listener.
pub async fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
