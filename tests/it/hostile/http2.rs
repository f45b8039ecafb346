//! Handwritten HTTP/2 (RFC 9113): frames that no client library sends.

use super::wire::{Input, Then};
use super::{Case, Expect, Target};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The payload of the PING that ends a case. Its acknowledgement shows that the
/// connection is still served.
const LAST: &[u8; 8] = b"the last";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A literal header field without indexing (RFC 7541, section 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            block.push(u8::try_from(length).unwrap());
        } else {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
        block.extend(text.as_bytes());
    }
    block
}

/// The header block of a valid request.
pub fn request(target: &Target, method: &str, path: &str) -> Vec<u8> {
    let authorization = format!("Bearer {}", target.token);
    [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "reading"),
        ("authorization", &authorization),
        ("content-type", "application/json"),
    ]
    .iter()
    .flat_map(|(name, value)| header(name, value))
    .collect()
}

/// The connection preface and an empty SETTINGS frame.
fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// Parses received bytes into frames (type, flags, stream, payload). An
/// incomplete last frame is ignored.
pub fn frames(mut seen: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = seen.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some(payload) = rest.get(..length) else {
            break;
        };
        frames.push((head[3], head[4], stream, payload.to_vec()));
        seen = &rest[length..];
    }
    frames
}

/// Whether the server has sent GOAWAY or has acknowledged the last PING.
pub fn is_settled(seen: &[u8]) -> bool {
    frames(seen)
        .iter()
        .any(|(kind, flags, _, payload)| match *kind {
            GOAWAY => true,
            PING => flags & ACK != 0 && payload == LAST,
            _ => false,
        })
}

/// Whether the server closed the connection before it acknowledged the last PING.
pub fn is_closed(seen: &[u8]) -> bool {
    !frames(seen)
        .iter()
        .any(|(kind, flags, _, payload)| *kind == PING && flags & ACK != 0 && payload == LAST)
}

/// A valid request, and a check that its response is complete.
pub fn good(target: &Target, path: &str) -> (Input, impl Fn(&[u8]) -> bool + use<>) {
    let block = request(target, "GET", path);
    let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    let is_complete = |seen: &[u8]| {
        frames(seen).iter().any(|(kind, flags, stream, _)| {
            *kind == DATA && flags & END_STREAM != 0 && *stream == 1
        })
    };
    ([hello(), headers].concat().into(), is_complete)
}

/// The body of a response with status 200; `None` for other responses.
pub fn body_of_ok(seen: &[u8]) -> Option<Vec<u8>> {
    // RFC 7541, appendix A: the eighth header is `:status: 200`.
    const STATUS_200: u8 = 0x88;
    let frames = frames(seen);
    let head = frames.iter().find(|frame| frame.0 == HEADERS)?;
    if head.3.first() != Some(&STATUS_200) {
        return None;
    }
    let data = frames.into_iter().filter(|frame| frame.0 == DATA);
    Some(data.flat_map(|frame| frame.3).collect())
}

fn case(name: &str, frames: Vec<u8>, expect: Expect) -> Case {
    let last = frame(PING, 0, 0, LAST);
    let first = [hello(), frames, last].concat();
    Case {
        name: format!("h2: {name}"),
        input: first.into(),
        expect,
        heavy: false,
    }
}

/// Frames that are excessive or invalid.
pub fn cases(target: &Target) -> Vec<Case> {
    use Expect::{Http2Closed, Http2ClosedOrServed};
    let path = "/api/v1/reading-sessions/active";
    let get = request(target, "GET", path);
    let good = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &get);
    let streams = |count: u32| (0..count).map(|n| 2 * n + 1);
    let times = |count: usize, frame: Vec<u8>| frame.repeat(count);
    let with = |name: &str, value: &str| [get.clone(), header(name, value)].concat();
    let whole = |block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    let in_parts = |block: &[u8]| {
        let mut parts = block.chunks(16_384).map(<[u8]>::to_vec);
        let mut bytes = frame(HEADERS, END_STREAM, 1, &parts.next().unwrap());
        bytes.extend(parts.flat_map(|part| frame(CONTINUATION, 0, 1, &part)));
        bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
        bytes
    };
    // One entry of 4 KB in the dynamic table, referenced 10,000 times.
    let bomb = {
        let mut entry = header("bomb", &"x".repeat(3_900));
        entry[0] = 0x40;
        [get.clone(), entry, vec![0xbe; 10_000]].concat()
    };
    let resets = || {
        streams(1_000)
            .flat_map(|stream| [good(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat())
            .collect::<Vec<u8>>()
    };
    let grow = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    let post = request(target, "POST", "/api/v1/reading-sessions/start");
    let light = vec![
        case(
            "a header of 100 KB",
            in_parts(&with("x", &"x".repeat(100_000))),
            Http2ClosedOrServed,
        ),
        case(
            "10,000 headers",
            in_parts(&[get.clone(), header("x", "y").repeat(10_000)].concat()),
            Http2ClosedOrServed,
        ),
        case(
            "a header compression bomb",
            whole(&bomb),
            Http2ClosedOrServed,
        ),
        case("broken compression", whole(&[0xff; 64]), Http2Closed),
        case(
            "a header name in capitals",
            whole(&with("Injected", "x")),
            Http2ClosedOrServed,
        ),
        case(
            "a line break in a header",
            whole(&with("x-request-id", "a\r\nInjected: b")),
            Http2ClosedOrServed,
        ),
        case(
            "a connection-specific header",
            whole(&with("connection", "close")),
            Http2ClosedOrServed,
        ),
        case(
            "no path",
            whole(&header(":method", "GET")),
            Http2ClosedOrServed,
        ),
        case(
            "an empty path",
            whole(&request(target, "GET", "")),
            Http2ClosedOrServed,
        ),
        case(
            "CONNECT",
            whole(&request(target, "CONNECT", path)),
            Http2ClosedOrServed,
        ),
        case(
            "more body than its length",
            [
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &[post.clone(), header("content-length", "2")].concat(),
                ),
                frame(DATA, END_STREAM, 1, &[b' '; 1_000]),
            ]
            .concat(),
            Http2ClosedOrServed,
        ),
        case("a stream id of the server", good(2), Http2Closed),
        case(
            "a stream id lower than the last",
            [good(9), good(3)].concat(),
            Http2Closed,
        ),
        case(
            "data without a request",
            frame(DATA, 0, 1, b"x"),
            Http2Closed,
        ),
        case(
            "a frame larger than allowed",
            frame(DATA, 0, 1, &[0; 20_000]),
            Http2Closed,
        ),
        case(
            "a frame of an unknown kind",
            frame(200, 255, 1, b"x"),
            Http2ClosedOrServed,
        ),
        case("a window that grows too far", grow.repeat(2), Http2Closed),
        case(
            "a window update of zero",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            Http2Closed,
        ),
        case(
            "settings of a wrong length",
            frame(SETTINGS, 0, 0, b"x"),
            Http2Closed,
        ),
        case(
            "a ping of a wrong length",
            frame(PING, 0, 0, b"x"),
            Http2Closed,
        ),
        case(
            "headers that another frame interrupts",
            [frame(HEADERS, 0, 1, &get), good(3)].concat(),
            Http2Closed,
        ),
    ];
    let heavy = vec![
        case(
            "1,000 requests at once",
            streams(1_000).flat_map(good).collect(),
            Http2ClosedOrServed,
        ),
        case(
            "1,000 requests opened and reset",
            resets(),
            Http2ClosedOrServed,
        ),
        case(
            "10,000 settings",
            times(10_000, frame(SETTINGS, 0, 0, &[])),
            Http2ClosedOrServed,
        ),
        case(
            "10,000 pings",
            times(10_000, frame(PING, 0, 0, b"flooding")),
            Http2ClosedOrServed,
        ),
        case(
            "10,000 empty data frames",
            [
                frame(HEADERS, END_HEADERS, 1, &post),
                times(10_000, frame(DATA, 0, 1, &[])),
            ]
            .concat(),
            Http2ClosedOrServed,
        ),
        case(
            "10,000 continuations",
            [
                frame(HEADERS, END_STREAM, 1, &get),
                times(10_000, frame(CONTINUATION, 0, 1, &header("x", "y"))),
            ]
            .concat(),
            Http2Closed,
        ),
        case(
            "10,000 empty continuations",
            [
                frame(HEADERS, END_STREAM, 1, &get),
                times(10_000, frame(CONTINUATION, 0, 1, &[])),
            ]
            .concat(),
            Http2Closed,
        ),
    ];
    let heavy = heavy.into_iter().map(|case| Case {
        heavy: true,
        ..case
    });
    light.into_iter().chain(heavy).collect()
}

/// The cases whose client pauses or trickles bytes.
pub fn slow(target: &Target) -> Vec<Case> {
    let waiting = |name: &str, first: Vec<u8>, then: Then| Case {
        name: format!("h2: {name}"),
        input: Input { first, then },
        expect: Expect::Http2Closed,
        heavy: false,
    };
    let post = request(target, "POST", "/api/v1/reading-sessions/start");
    let open = |flags| [hello(), frame(HEADERS, flags, 1, &post)].concat();
    vec![
        waiting("half of the preface", PREFACE[..12].to_vec(), Then::Wait),
        waiting("the preface alone", PREFACE.to_vec(), Then::Wait),
        waiting("settings and no request", hello(), Then::Wait),
        waiting("headers without their end", open(0), Then::Wait),
        waiting("a body that never comes", open(END_HEADERS), Then::Wait),
        waiting(
            "frames a byte at a time",
            hello(),
            Then::Drip(b"\0\0\0\x04\0\0\0\0\0"),
        ),
    ]
}
