//! Valid and invalid request lines and methods.

use super::{case, endless, get, head, heavy};
use crate::hostile::{Case, Expect, Target};

pub fn cases(target: &Target) -> Vec<Case> {
    use Expect::{AnyRefusalOrClosed, Good, Problem, RefusedOrClosed, StatusOnly};
    let simple = |line: &str| format!("{line}\r\nHost: reading\r\n\r\n").into_bytes();
    // The start of a TLS 1.3 handshake.
    let hello = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![7; 506],
    ]
    .concat();
    let good = "/api/v1/reading-sessions/active";
    let pipeline = {
        let one = get(target, good);
        let text = String::from_utf8(one.clone()).unwrap();
        let open = text.replace("Connection: close\r\n", "").into_bytes();
        [open.repeat(999), one].concat()
    };
    vec![
        heavy("1,000 pipelined requests", pipeline, Good(1_000)),
        case("HTTP/0.9", b"GET /\r\n\r\n".to_vec(), StatusOnly(400)),
        case("HTTP/3.0", simple("GET / HTTP/3.0"), StatusOnly(400)),
        case("HTTP/1.2", simple("GET / HTTP/1.2"), StatusOnly(400)),
        case("HTTP/1.0", simple("GET / HTTP/1.0"), Problem(404)),
        case("no target", simple("GET HTTP/1.1"), StatusOnly(400)),
        case(
            "a relative target",
            simple("GET active HTTP/1.1\r\nConnection: close"),
            Problem(404),
        ),
        case(
            "a space in the target",
            simple("GET /a b HTTP/1.1"),
            StatusOnly(400),
        ),
        case(
            "a NUL in the target",
            simple("GET /\0 HTTP/1.1"),
            StatusOnly(400),
        ),
        case(
            "a line break in the target",
            simple("GET /\rInjected:x HTTP/1.1"),
            StatusOnly(400),
        ),
        case("zeros", vec![0; 1_000], StatusOnly(400)),
        case(
            "garbage",
            (0..=255).rev().collect::<Vec<u8>>(),
            StatusOnly(400),
        ),
        case("a TLS handshake", hello, StatusOnly(400)),
        case("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), StatusOnly(400)),
        case(
            "a giant method",
            simple(&format!("{} / HTTP/1.1", "A".repeat(20_000))),
            StatusOnly(431),
        ),
        case(
            "a giant target",
            simple(&format!("GET /{} HTTP/1.1", "a".repeat(20_000))),
            StatusOnly(431),
        ),
        case(
            "a long target",
            simple(&format!(
                "GET /{} HTTP/1.1\r\nConnection: close",
                "a".repeat(10_000)
            )),
            Problem(404),
        ),
        case(
            "a target without end",
            endless(b"GET /".to_vec(), "a"),
            RefusedOrClosed(431),
        ),
        case(
            "empty lines without end",
            endless(Vec::new(), "\r\n"),
            AnyRefusalOrClosed,
        ),
    ]
}

pub fn methods(target: &Target) -> Vec<Case> {
    let active = "/api/v1/reading-sessions/active";
    let request = |line: &str| format!("{}\r\n", head(target, line)).into_bytes();
    let mut cases: Vec<Case> = [
        "TRACE", "FOO", "PATCH", "DELETE", "get", "PROPFIND", "QUERY",
    ]
    .map(|method| {
        case(
            method,
            request(&format!("{method} {active}")),
            Expect::Problem(405),
        )
    })
    .into();
    cases.push(case(
        "CONNECT",
        request("CONNECT elsewhere:443"),
        Expect::Problem(404),
    ));
    cases.push(case(
        "CONNECT to a path",
        request(&format!("CONNECT {active}")),
        Expect::Problem(405),
    ));
    cases.push(case(
        "OPTIONS of all",
        request("OPTIONS *"),
        Expect::Problem(404),
    ));
    cases.push(case(
        "a method with a strange name",
        request(&format!("G!#$%&'*+-.^_`|~ {active}")),
        Expect::Problem(405),
    ));
    cases
}
