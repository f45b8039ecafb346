//! A TCP proxy that holds what clients send, as if the network had stored it, and delivers it
//! later: also after the client has gone.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy in front of a NATS server.
pub struct HoldingProxy {
    /// The URL of the server through this proxy.
    pub url: String,
    is_holding: watch::Sender<bool>,
    held: Arc<Mutex<Vec<u8>>>,
}

impl HoldingProxy {
    /// Starts a proxy for the server in `url`. It runs until the test ends. With a `marker`,
    /// it holds what clients send from the first part on that contains it.
    pub async fn start(url: &str, marker: Option<&'static str>) -> Self {
        let (front, server) = url.rsplit_once('@').expect("a URL with a user");
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{front}@{}", listener.local_addr().unwrap());
        let is_holding = watch::Sender::new(false);
        let held = Arc::new(Mutex::new(Vec::new()));
        let (holding, stored) = (is_holding.clone(), Arc::clone(&held));
        tokio::spawn(async move {
            let mut marker = marker;
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(forward(
                    client,
                    server,
                    marker.take(),
                    holding.clone(),
                    Arc::clone(&stored),
                ));
            }
        });
        Self {
            url,
            is_holding,
            held,
        }
    }

    /// Holds what clients send from now on.
    pub fn hold(&self) {
        self.is_holding.send_replace(true);
    }

    /// Delivers what was held, and holds nothing more.
    pub fn release(&self) {
        self.is_holding.send_replace(false);
    }

    /// How often the held parts contain a text.
    pub fn held(&self, text: &str) -> usize {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.windows(text.len())
            .filter(|part| *part == text.as_bytes())
            .count()
    }
}

async fn forward(
    client: TcpStream,
    server: TcpStream,
    mut marker: Option<&'static str>,
    is_holding: watch::Sender<bool>,
    held: Arc<Mutex<Vec<u8>>>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move {
        // Ends when either side closes.
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut held_here = Vec::new();
    let mut changes = is_holding.subscribe();
    let mut buffer = vec![0; 1 << 16];
    let mut is_open = true;
    loop {
        let holds = *changes.borrow_and_update();
        if !holds && !held_here.is_empty() && to_server.write_all(&held_here).await.is_err() {
            return;
        }
        if !holds {
            held_here.clear();
            if !is_open {
                return;
            }
        }
        tokio::select! {
            read = from_client.read(&mut buffer), if is_open => {
                let count = read.unwrap_or(0);
                is_open = count > 0;
                let part = &buffer[..count];
                if let Some(text) = marker
                    && part.windows(text.len()).any(|part| part == text.as_bytes())
                {
                    marker = None;
                    is_holding.send_replace(true);
                }
                held_here.extend_from_slice(part);
                if *is_holding.borrow() {
                    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                    held.extend_from_slice(part);
                }
            }
            next = changes.changed() => {
                if next.is_err() {
                    return;
                }
            }
        }
    }
}
