//! HTTP/1.1 by hand (RFC 9112): requests that no client library would send.

mod bodies;
mod framing;
mod headers;
mod lines;
mod slow;
mod targets;

use super::wire::{Sends, Then};
use super::{Case, Expect, Target};

pub use slow::cases as slow;

/// All that can be sent in one go.
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

/// A good start of a request: its line, who asks, and that nothing follows it.
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

/// A request without a body, and with headers of its own.
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

fn case(name: impl Into<String>, sends: impl Into<Sends>, expect: Expect) -> Case {
    Case {
        name: name.into(),
        sends: sends.into(),
        expect,
        heavy: false,
    }
}

fn heavy(name: &str, sends: impl Into<Sends>, expect: Expect) -> Case {
    Case {
        heavy: true,
        ..case(name, sends, expect)
    }
}

fn endless(first: Vec<u8>, again: impl AsRef<[u8]>) -> Sends {
    let then = Then::Again(again.as_ref().repeat(1_000));
    Sends { first, then }
}
