//! A wire to a server that can be cut so that neither side notices: what is
//! sent goes nowhere and nothing comes back, as when a machine on the way dies.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to a server.
pub struct Wire {
    /// The server's address, by this wire.
    pub url: String,
    cut: watch::Sender<bool>,
}

impl Wire {
    /// A way to the server that an address names; works as long as the test.
    pub async fn to(url: &str) -> Self {
        let (front, rest) = url.rsplit_once('@').expect("an address with a user");
        let (server, database) = rest.split_once('/').expect("and a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = watch::Sender::new(false);
        tokio::spawn(carry(listener, server.to_owned(), cut.subscribe()));
        Self {
            url: format!("{front}@127.0.0.1:{port}/{database}"),
            cut,
        }
    }

    /// Silences the connections there are, for good, and those to come.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Lets new connections through.
    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn carry(listener: TcpListener, server: String, cut: watch::Receiver<bool>) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut cut = cut.clone();
        let server = server.clone();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(server).await.unwrap();
            let cut = async { drop(cut.wait_for(|cut| *cut).await) };
            let silent = tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => false,
                () = cut => true,
            };
            if silent {
                // Both ends stay open, and nobody reads.
                std::future::pending::<()>().await;
            }
        });
    }
}

/// An address on loopback where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}
