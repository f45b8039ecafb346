//! A client that sends raw bytes and collects the bytes that come back.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tests::scaled;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time limit of a case. Cases that end as expected take far less.
pub const CASE_TIMEOUT: Duration = Duration::from_secs(20);

/// More bytes than the service sends to any case.
const MAX_RECEIVED: usize = 16 << 20;

/// Pause between two bytes of a slow client.
const DRIP_INTERVAL: Duration = Duration::from_millis(5);

/// The bytes that a client sends on its own connection.
#[derive(Clone, Debug, Default)]
pub struct Input {
    pub first: Vec<u8>,
    pub then: Then,
}

/// The behaviour of a client after its first bytes. The client never closes its
/// side of the connection.
#[derive(Clone, Debug, Default)]
pub enum Then {
    #[default]
    Wait,
    /// Sends the same bytes repeatedly, as fast as the service accepts them.
    Repeat(Vec<u8>),
    /// Sends the same bytes repeatedly, one byte every [`DRIP_INTERVAL`].
    Drip(&'static [u8]),
}

impl From<Vec<u8>> for Input {
    fn from(first: Vec<u8>) -> Self {
        Self {
            first,
            then: Then::Wait,
        }
    }
}

/// Returns the received bytes once the connection is closed or `enough` holds;
/// `None` if neither happens within [`CASE_TIMEOUT`].
pub async fn exchange(
    address: SocketAddr,
    input: &Input,
    enough: impl Fn(&[u8]) -> bool,
) -> Option<Vec<u8>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let talk = async {
        tokio::select! {
            seen = read(&mut from, enough) => seen,
            () = write(&mut to, input) => unreachable!("`write` never returns"),
        }
    };
    tokio::time::timeout(scaled(CASE_TIMEOUT), talk).await.ok()
}

async fn read(from: &mut (impl AsyncRead + Unpin), enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut seen = Vec::new();
    // A reset counts as a closed connection.
    while let Ok(1..) = from.read_buf(&mut seen).await {
        assert!(seen.len() < MAX_RECEIVED, "an endless response");
        if enough(&seen) {
            break;
        }
    }
    seen
}

/// Sends until the service accepts no more bytes; never returns.
async fn write(to: &mut (impl AsyncWrite + Unpin), input: &Input) {
    let _ = to.write_all(&input.first).await;
    match &input.then {
        Then::Wait => {}
        Then::Repeat(bytes) => while to.write_all(bytes).await.is_ok() {},
        Then::Drip(bytes) => {
            for byte in bytes.iter().cycle() {
                if to.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(DRIP_INTERVAL).await;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// An HTTP/1.1 response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// Whether the body is a problem document whose `status` equals the response's.
    pub fn is_problem(&self) -> bool {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        self.head.contains("application/problem+json") && json["status"] == self.status
    }
}

/// Parses the received bytes into responses, without the interim (1xx) ones.
pub fn responses(mut seen: &[u8]) -> Result<Vec<Response>, String> {
    let mut responses = Vec::new();
    while !seen.is_empty() {
        let end = seen
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .ok_or("a response whose head has no end")?;
        let head = String::from_utf8_lossy(&seen[..end]).into_owned();
        let status: u16 = head
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| head.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| format!("not a response: {head}"))?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        seen = &seen[end + 4..];
        let body = seen.get(..length).ok_or("a truncated response")?;
        seen = &seen[length..];
        if status >= 200 {
            let body = body.to_vec();
            responses.push(Response { status, head, body });
        }
    }
    Ok(responses)
}
