//! A load that costs little itself: requests are bytes made ahead, answers are
//! looked at just enough to know their status and their end.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tests::app::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Readers with an active session each, spread over connections.
pub struct Crowd {
    address: SocketAddr,
    /// The readers of each connection.
    shares: Vec<Vec<Member>>,
}

/// A reader, as the head of their update requests.
#[derive(Clone)]
struct Member {
    head: String,
}

/// What a run of updates came to.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Updates answered 200.
    pub acknowledged: usize,
    /// Other answers.
    pub errors: usize,
    /// How long it took.
    pub took: Duration,
    /// Latencies, in microseconds, ascending.
    pub latencies: Vec<u32>,
}

impl Load {
    /// Acknowledged updates a second.
    pub fn rate(&self) -> f64 {
        count(self.acknowledged) / self.took.as_secs_f64()
    }

    /// A percentile of the latencies, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len() - 1);
        f64::from(self.latencies[index]) / 1_000.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

impl Crowd {
    /// Starts a session for each of `readers`.
    pub async fn start(
        address: SocketAddr,
        readers: usize,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            let share = (connection..readers).step_by(connections).count();
            tasks.spawn(start_share(address, share));
        }
        let mut shares = Vec::with_capacity(connections);
        while let Some(share) = tasks.join_next().await {
            shares.push(share??);
        }
        Ok(Self { address, shares })
    }

    /// Updates positions as fast as they are answered, for a while.
    pub async fn update(&self, length: Duration) -> anyhow::Result<Load> {
        let started = Instant::now();
        let until = started + length;
        let mut tasks = JoinSet::new();
        for share in &self.shares {
            tasks.spawn(update_share(self.address, share.clone(), until));
        }
        let mut load = Load::default();
        while let Some(part) = tasks.join_next().await {
            let part = part??;
            load.acknowledged += part.acknowledged;
            load.errors += part.errors;
            load.latencies.extend(part.latencies);
        }
        load.took = started.elapsed();
        load.latencies.sort_unstable();
        Ok(load)
    }
}

async fn start_share(address: SocketAddr, readers: usize) -> anyhow::Result<Vec<Member>> {
    let mut connection = Connection::open(address).await?;
    let mut share = Vec::with_capacity(readers);
    for _ in 0..readers {
        let token = token(Uuid::new_v4());
        let head = |method: &str, path: &str| {
            format!(
                "{method} /api/v1/reading-sessions/{path} HTTP/1.1\r\nhost: {address}\r\n\
                 authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
            )
        };
        let body = format!(
            "{{\"book_id\":\"{}\",\"time_zone\":\"Europe/Berlin\"}}",
            Uuid::new_v4()
        );
        let request = with_body(&head("POST", "start"), &body);
        let status = connection.call(request.as_bytes()).await?;
        ensure!(status == 201, "a start was answered {status}");
        let session: serde_json::Value = serde_json::from_slice(connection.body())?;
        let id = session["id"].as_str().context("a session has an id")?;
        share.push(Member {
            head: head("PUT", &format!("{id}/update")),
        });
    }
    Ok(share)
}

async fn update_share(
    address: SocketAddr,
    share: Vec<Member>,
    until: Instant,
) -> anyhow::Result<Load> {
    let mut connection = Connection::open(address).await?;
    let mut load = Load::default();
    for (n, member) in share.iter().cycle().enumerate() {
        let position = n % 1_000;
        let body = format!(
            "{{\"current_position\":{}.{}}}",
            position / 10,
            position % 10
        );
        let request = with_body(&member.head, &body);
        let sent = Instant::now();
        if sent >= until {
            break;
        }
        match connection.call(request.as_bytes()).await? {
            200 => load.acknowledged += 1,
            _ => load.errors += 1,
        }
        load.latencies
            .push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(load)
}

fn with_body(head: &str, body: &str) -> String {
    let mut request = String::with_capacity(head.len() + body.len() + 32);
    request.push_str(head);
    let _ = write!(request, "content-length: {}\r\n\r\n{body}", body.len());
    request
}

/// A kept-alive HTTP/1.1 connection, one request at a time.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    body: usize,
}

impl Connection {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4_096),
            body: 0,
        })
    }

    /// Sends a request and reads its answer; returns the status.
    async fn call(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed");
            }
            let Some(head) = find(&self.buffer, b"\r\n\r\n") else {
                continue;
            };
            self.body = head + 4;
            let text = std::str::from_utf8(&self.buffer[..head])?;
            let length: usize = text
                .split("\r\n")
                .find_map(|line| line.strip_prefix("content-length: "))
                .context("an answer has a length")?
                .parse()?;
            if self.buffer.len() < self.body + length {
                continue;
            }
            let status = text.get(9..12).context("an answer has a status")?;
            return Ok(status.parse()?);
        }
    }

    fn body(&self) -> &[u8] {
        &self.buffer[self.body..]
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
