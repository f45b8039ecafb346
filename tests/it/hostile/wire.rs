//! A client that sends bytes as they are, and what it sees.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long any case may last; whatever ends by itself ends far sooner.
pub const BOUND: Duration = Duration::from_secs(20);

/// More than the service answers to anyone.
const MAX_ANSWER: usize = 16 << 20;

/// Between the bytes of a slow client.
const DRIP: Duration = Duration::from_millis(5);

/// What a client sends, on a connection of its own.
#[derive(Clone, Debug, Default)]
pub struct Sends {
    /// At first.
    pub first: Vec<u8>,
    /// And then.
    pub then: Then,
}

/// What a client does after its first bytes. It never closes its side.
#[derive(Clone, Debug, Default)]
pub enum Then {
    /// Waits.
    #[default]
    Nothing,
    /// The same bytes again and again, as fast as they are taken.
    Again(Vec<u8>),
    /// The same bytes again and again, slowly, one at a time.
    Drips(&'static [u8]),
}

impl From<Vec<u8>> for Sends {
    fn from(first: Vec<u8>) -> Self {
        Self {
            first,
            then: Then::Nothing,
        }
    }
}

/// What came back until the connection closed, or `enough` had come; `None`
/// when neither happened within the bound.
pub async fn exchange(
    address: SocketAddr,
    sends: &Sends,
    enough: impl Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let talk = async {
        tokio::select! {
            seen = read(&mut from, enough) => seen,
            () = write(&mut to, sends) => unreachable!("it waits when all is sent"),
        }
    };
    tokio::time::timeout(BOUND, talk).await.ok()
}

async fn read(from: &mut (impl AsyncRead + Unpin), enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut seen = Vec::new();
    // A reset is an end like another.
    while let Ok(1..) = from.read_buf(&mut seen).await {
        assert!(seen.len() < MAX_ANSWER, "an answer without end");
        if enough(&seen) {
            break;
        }
    }
    seen
}

/// Sends until the other side takes no more; never returns.
async fn write(to: &mut (impl AsyncWrite + Unpin), sends: &Sends) {
    let _ = to.write_all(&sends.first).await;
    match &sends.then {
        Then::Nothing => {}
        Then::Again(bytes) => while to.write_all(bytes).await.is_ok() {},
        Then::Drips(bytes) => {
            for byte in bytes.iter().cycle() {
                if to.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(DRIP).await;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// An HTTP/1.1 answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether it is the service's own: a problem whose status is its own.
    pub fn is_problem(&self) -> bool {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        self.head.contains("application/problem+json") && json["status"] == self.status
    }
}

/// The answers in what came back, without the interim ones.
pub fn answers(mut seen: &[u8]) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    while !seen.is_empty() {
        let end = seen
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .ok_or("an answer without an end of its head")?;
        let head = String::from_utf8_lossy(&seen[..end]).into_owned();
        let status: u16 = head
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| head.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| format!("not an answer: {head}"))?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        seen = &seen[end + 4..];
        let body = seen.get(..length).ok_or("an answer that breaks off")?;
        seen = &seen[length..];
        if status >= 200 {
            let body = body.to_vec();
            answers.push(Answer { status, head, body });
        }
    }
    Ok(answers)
}
