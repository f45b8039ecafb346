//! TLS in front of Redis: the server that the tests download was built without it.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::certificates::{Authority, Identity};

/// Accepts TLS connections and forwards them to a Redis server, until the test ends.
pub struct RedisTerminator {
    /// The URL of the server through this terminator, with `rediss://`.
    pub url: String,
}

impl RedisTerminator {
    /// Starts a terminator for the server in `url`. With `clients`, it requires a
    /// client certificate of this authority.
    pub async fn start(url: &str, identity: &Identity, clients: Option<&Authority>) -> Self {
        let (front, rest) = url.rsplit_once('@').expect("a URL with a password");
        let (server, database) = rest.split_once('/').expect("a URL with a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config(identity, clients)));
        tokio::spawn(forward(listener, acceptor, server.to_owned()));
        let front = front.replacen("redis://", "rediss://", 1);
        Self {
            url: format!("{front}@localhost:{port}/{database}"),
        }
    }
}

fn config(identity: &Identity, clients: Option<&Authority>) -> ServerConfig {
    let certificates = CertificateDer::pem_file_iter(&identity.certificate).unwrap();
    let certificates = certificates.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let builder = ServerConfig::builder();
    let builder = match clients {
        Some(clients) => {
            let mut authorities = RootCertStore::empty();
            authorities.add(clients.der()).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(authorities));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(certificates, key).unwrap()
}

async fn forward(listener: TcpListener, acceptor: TlsAcceptor, server: String) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (acceptor, server) = (acceptor.clone(), server.clone());
        tokio::spawn(async move {
            let Ok(mut client) = acceptor.accept(client).await else {
                return;
            };
            let mut server = TcpStream::connect(server).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
