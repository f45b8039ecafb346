//! A keep-alive HTTP/1.1 connection with one request in flight, for a thread that polls
//! many connections.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use memchr::memmem;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// Initial size of the response buffer, which grows for larger responses.
const INITIAL_BUFFER: usize = 4 * 1024;

/// The parsed parts of a response.
pub struct Response<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Connects and registers the connection for polling.
    pub fn open(address: SocketAddr, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let stream =
            std::net::TcpStream::connect(address).context("connecting to the service failed")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Self {
            stream,
            buffer: vec![0; INITIAL_BUFFER],
            filled: 0,
        })
    }

    /// Sends a request. It fits into the socket's send buffer, because no other request is in
    /// flight.
    pub fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.filled = 0;
        let sent = self.stream.write(request)?;
        ensure!(sent == request.len(), "the request was sent only in part");
        Ok(())
    }

    /// Returns the response once it is complete.
    pub fn receive(&mut self) -> anyhow::Result<Option<Response<'_>>> {
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
            if let Some(complete) = parse(&self.buffer[..self.filled])? {
                break complete;
            }
        };
        Ok(Some(Response {
            status,
            body: &self.buffer[body..end],
        }))
    }
}

/// Returns the status, the start of the body and its end, if the response is complete.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let body = head + 4;
    // The service and nginx write the header's name differently.
    let names: [&[u8]; 2] = [b"\r\ncontent-length: ", b"\r\nContent-Length: "];
    let length = names
        .iter()
        .find_map(|name| Some(memmem::find(&bytes[..head], name)? + name.len()))
        .context("the response has no content-length")?;
    let digits = bytes[length..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| 10 * length + usize::from(digit - b'0'));
    if bytes.len() < body + length {
        return Ok(None);
    }
    let status = bytes.get(9..12).context("the response has no status")?;
    let status = std::str::from_utf8(status)?.parse()?;
    Ok(Some((status, body, body + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_of_the_service_and_of_nginx_are_parsed() {
        for name in ["content-length", "Content-Length"] {
            let response = format!("HTTP/1.1 201 Created\r\n{name}: 4\r\n\r\nbody");
            let (status, body, end) = parse(response.as_bytes()).unwrap().unwrap();
            assert_eq!((status, &response[body..end]), (201, "body"));
        }
    }

    #[test]
    fn incomplete_responses_are_not_parsed() {
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        for end in 0..response.len() {
            assert!(parse(&response[..end]).unwrap().is_none(), "{end}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
