//! Handwritten HTTP/1.1 (RFC 9112): requests that no client library sends.

mod bodies;
mod framing;
mod headers;
mod lines;
mod slow;
mod targets;

use super::wire::{Input, Then};
use super::{Case, Expect, Target};

pub use slow::cases as slow;

/// The cases whose client sends without pauses.
pub fn cases(target: &Target) -> Vec<Case> {
    [
        lines::cases,
        lines::methods,
        targets::paths,
        targets::queries,
        framing::cases,
        headers::cases,
        bodies::cases,
    ]
    .iter()
    .flat_map(|cases| cases(target))
    .collect()
}

/// A valid request line and headers, with a token and `Connection: close`, but
/// without the empty line that ends the head.
fn head(target: &Target, line: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: reading\r\nAuthorization: Bearer {}\r\nConnection: close\r\n",
        target.token
    )
}

fn update_line(target: &Target) -> String {
    format!("PUT /api/v1/reading-sessions/{}/update", target.session)
}

/// A request without a body.
fn get(target: &Target, path: impl AsRef<[u8]>) -> Vec<u8> {
    let head = head(target, "GET \u{1}");
    let (before, after) = head.split_once('\u{1}').unwrap();
    [before.as_bytes(), path.as_ref(), after.as_bytes(), b"\r\n"].concat()
}

/// A request without a body and with additional headers.
fn get_with(target: &Target, headers: impl AsRef<[u8]>) -> Vec<u8> {
    let head = head(target, "GET /api/v1/reading-sessions/active");
    [head.as_bytes(), headers.as_ref(), b"\r\n"].concat()
}

/// An update with this body.
fn put(target: &Target, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let headers = format!("Content-Length: {}\r\n", body.len());
    put_with(target, headers, body)
}

/// An update with these headers and this body.
fn put_with(target: &Target, headers: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let head = head(target, &update_line(target));
    let json = b"Content-Type: application/json\r\n";
    [
        head.as_bytes(),
        json,
        headers.as_ref(),
        b"\r\n",
        body.as_ref(),
    ]
    .concat()
}

fn case(name: impl Into<String>, input: impl Into<Input>, expect: Expect) -> Case {
    Case {
        name: name.into(),
        input: input.into(),
        expect,
        heavy: false,
    }
}

fn heavy(name: &str, input: impl Into<Input>, expect: Expect) -> Case {
    Case {
        heavy: true,
        ..case(name, input, expect)
    }
}

/// Sends `first`, then `repeated` without end.
fn endless(first: Vec<u8>, repeated: impl AsRef<[u8]>) -> Input {
    let then = Then::Repeat(repeated.as_ref().repeat(1_000));
    Input { first, then }
}
