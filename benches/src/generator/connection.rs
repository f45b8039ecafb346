//! A kept-alive HTTP/1.1 connection with one request in flight, for a thread
//! that polls many of them.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use memchr::memmem;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// Room for an answer; grows for larger ones.
const ROOM: usize = 4 * 1024;

/// An answer, as far as it is looked at.
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
}

/// A connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Connects, and is polled from now on.
    pub fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let stream = std::net::TcpStream::connect(address).context("the service takes no calls")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self {
            stream,
            buffer: vec![0; ROOM],
            filled: 0,
        })
    }

    /// Sends a request. It always has room: the one before was answered.
    pub fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.filled = 0;
        let sent = self.stream.write(request)?;
        ensure!(sent == request.len(), "a request did not go out whole");
        Ok(())
    }

    /// The answer, if it is there whole.
    pub fn receive(&mut self) -> anyhow::Result<Option<Answer<'_>>> {
        let (status, body, end) = loop {
            if self.filled == self.buffer.len() {
                self.buffer.resize(2 * self.filled, 0);
            }
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => bail!("the connection was closed"),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(whole) = whole(&self.buffer[..self.filled])? {
                break whole;
            }
        };
        Ok(Some(Answer {
            status,
            body: &self.buffer[body..end],
        }))
    }
}

/// Status, beginning of the body and its end, when all of it is here.
fn whole(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let body = head + 4;
    let name = b"\r\ncontent-length: ";
    let length = memmem::find(&bytes[..head], name).context("an answer has no length")?;
    let digits = bytes[length + name.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| 10 * length + usize::from(digit - b'0'));
    if bytes.len() < body + length {
        return Ok(None);
    }
    let status = bytes.get(9..12).context("an answer has no status")?;
    let status = std::str::from_utf8(status)?.parse()?;
    Ok(Some((status, body, body + length)))
}
