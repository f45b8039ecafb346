//! The reference for reads: an axum handler that does nothing. It runs in its own
//! process and is called by the same generator. It also discards the spans that the service
//! exports.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::generator::reader_pool::THREADS;
use crate::generator::scripts::Repeat;
use crate::generator::{Load, closed};

/// Longest time until the handler prints its address.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The running process, which ends when this is dropped.
pub struct EmptyHandler {
    pub address: SocketAddr,
    child: Child,
}

impl EmptyHandler {
    /// Starts this executable with the command `empty-handler`.
    pub async fn start(executable: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(executable)
            .arg("empty-handler")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the empty handler failed")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        tokio::time::timeout(START_TIMEOUT, stdout.read_line(&mut line)).await??;
        Ok(Self {
            address: line.trim().parse()?,
            child,
        })
    }

    /// The process, for a [`Meter`](crate::usage::Meter).
    pub fn pids(&self) -> Vec<(&'static str, u32)> {
        let pid = self.child.id();
        pid.map(|pid| ("empty handler", pid)).into_iter().collect()
    }

    /// Runs a closed loop of requests.
    pub fn run(&self, connections: usize, length: Duration) -> anyhow::Result<Load> {
        let mut scripts: Vec<_> = (0..THREADS)
            .map(|_| Repeat(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()))
            .collect();
        closed::run(self.address, &mut scripts, connections / THREADS, length)
    }
}

/// Serves until the process is killed.
#[expect(clippy::print_stdout, reason = "the parent process reads the address")]
pub async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let router = Router::new()
        .route("/", get(async || ()))
        .route("/v1/traces", post(async |_: Bytes| ()))
        .layer(DefaultBodyLimit::disable());
    axum::serve(listener, router).await?;
    Ok(())
}
