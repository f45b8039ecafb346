//! The reference for reads: an axum handler that does nothing, in a process of
//! its own, under the same generator.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::generator::crowd::THREADS;
use crate::generator::scripts::Same;
use crate::generator::{Load, closed};

/// How long it may take to say where it listens.
const START: Duration = Duration::from_secs(10);

/// The running handler; ends when this is dropped.
pub struct Hello {
    address: SocketAddr,
    _child: Child,
}

impl Hello {
    /// Starts this executable once more.
    pub async fn start(executable: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(executable)
            .arg("hello")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the empty handler does not start")?;
        let said = child.stdout.take().context("it says where it listens")?;
        let mut line = String::new();
        let mut said = BufReader::new(said);
        tokio::time::timeout(START, said.read_line(&mut line)).await??;
        Ok(Self {
            address: line.trim().parse()?,
            _child: child,
        })
    }

    /// Asks it, in a closed loop.
    pub fn ask(&self, connections: usize, length: Duration) -> anyhow::Result<Load> {
        let mut scripts: Vec<_> = (0..THREADS)
            .map(|_| Same(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()))
            .collect();
        closed::run(self.address, &mut scripts, connections / THREADS, length)
    }
}

/// Serves until it is killed.
#[expect(clippy::print_stdout, reason = "its parent reads where it listens")]
pub async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, Router::new().route("/", get(async || ()))).await?;
    Ok(())
}
