//! HTTP/2 by hand (RFC 9113): frames that no client library would send.

use super::wire::{Sends, Then};
use super::{Case, Expect, Target};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The name of the PING that ends a case, so that a connection that is still
/// served is known by its answer.
const LAST: &[u8; 8] = b"the last";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header, written out (RFC 7541, section 6.2.2).
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

/// The header block of a good request.
fn request(target: &Target, method: &str, path: &str) -> Vec<u8> {
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

/// The frames that a client begins with.
fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The frames of what came back; the last one may be missing its end.
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

/// Whether the connection is given up, or still served after all was sent.
pub fn is_settled(seen: &[u8]) -> bool {
    frames(seen)
        .iter()
        .any(|(kind, flags, _, payload)| match *kind {
            GOAWAY => true,
            PING => flags & ACK != 0 && payload == LAST,
            _ => false,
        })
}

/// Whether the connection is given up.
pub fn is_given_up(seen: &[u8]) -> bool {
    !frames(seen)
        .iter()
        .any(|(kind, flags, _, payload)| *kind == PING && flags & ACK != 0 && payload == LAST)
}

/// A good request: its bytes, and a test of the answer.
pub fn good(target: &Target, path: &str) -> (Sends, impl Fn(&[u8]) -> bool + use<>) {
    let block = request(target, "GET", path);
    let headers = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    let ends = |seen: &[u8]| {
        frames(seen).iter().any(|(kind, flags, stream, _)| {
            *kind == DATA && flags & END_STREAM != 0 && *stream == 1
        })
    };
    ([hello(), headers].concat().into(), ends)
}

/// The status 200 and the body of the first stream.
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
        sends: first.into(),
        expect,
        heavy: false,
    }
}

/// Frames that ask for too much, or make no sense.
pub fn cases(target: &Target) -> Vec<Case> {
    use Expect::{GivenUp, GivenUpOrServed};
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
    // One entry of 4 KB in the dynamic table, named again and again.
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
            GivenUpOrServed,
        ),
        case(
            "10,000 headers",
            in_parts(&[get.clone(), header("x", "y").repeat(10_000)].concat()),
            GivenUpOrServed,
        ),
        case("a compressed bomb", whole(&bomb), GivenUpOrServed),
        case("broken compression", whole(&[0xff; 64]), GivenUp),
        case(
            "a header name in capitals",
            whole(&with("Injected", "x")),
            GivenUpOrServed,
        ),
        case(
            "a line break in a header",
            whole(&with("x-request-id", "a\r\nInjected: b")),
            GivenUpOrServed,
        ),
        case(
            "a header of a connection",
            whole(&with("connection", "close")),
            GivenUpOrServed,
        ),
        case("no path", whole(&header(":method", "GET")), GivenUpOrServed),
        case(
            "an empty path",
            whole(&request(target, "GET", "")),
            GivenUpOrServed,
        ),
        case(
            "CONNECT",
            whole(&request(target, "CONNECT", path)),
            GivenUpOrServed,
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
            GivenUpOrServed,
        ),
        case("a stream of the server's", good(2), GivenUp),
        case(
            "a stream that goes back",
            [good(9), good(3)].concat(),
            GivenUp,
        ),
        case("data without a request", frame(DATA, 0, 1, b"x"), GivenUp),
        case(
            "a frame larger than allowed",
            frame(DATA, 0, 1, &[0; 20_000]),
            GivenUp,
        ),
        case(
            "a frame of an unknown kind",
            frame(200, 255, 1, b"x"),
            GivenUpOrServed,
        ),
        case("a window that grows too far", grow.repeat(2), GivenUp),
        case(
            "a window that grows by nothing",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            GivenUp,
        ),
        case(
            "settings of a wrong length",
            frame(SETTINGS, 0, 0, b"x"),
            GivenUp,
        ),
        case("a ping of a wrong length", frame(PING, 0, 0, b"x"), GivenUp),
        case(
            "headers that another frame interrupts",
            [frame(HEADERS, 0, 1, &get), good(3)].concat(),
            GivenUp,
        ),
    ];
    let heavy = vec![
        case(
            "1,000 requests at once",
            streams(1_000).flat_map(good).collect(),
            GivenUpOrServed,
        ),
        case("1,000 requests opened and reset", resets(), GivenUpOrServed),
        case(
            "10,000 settings",
            times(10_000, frame(SETTINGS, 0, 0, &[])),
            GivenUpOrServed,
        ),
        case(
            "10,000 pings",
            times(10_000, frame(PING, 0, 0, b"flooding")),
            GivenUpOrServed,
        ),
        case(
            "10,000 empty data frames",
            [
                frame(HEADERS, END_HEADERS, 1, &post),
                times(10_000, frame(DATA, 0, 1, &[])),
            ]
            .concat(),
            GivenUpOrServed,
        ),
        case(
            "10,000 continuations",
            [
                frame(HEADERS, END_STREAM, 1, &get),
                times(10_000, frame(CONTINUATION, 0, 1, &header("x", "y"))),
            ]
            .concat(),
            GivenUp,
        ),
        case(
            "10,000 empty continuations",
            [
                frame(HEADERS, END_STREAM, 1, &get),
                times(10_000, frame(CONTINUATION, 0, 1, &[])),
            ]
            .concat(),
            GivenUp,
        ),
    ];
    let heavy = heavy.into_iter().map(|case| Case {
        heavy: true,
        ..case
    });
    light.into_iter().chain(heavy).collect()
}

/// Clients that keep the service waiting.
pub fn slow(target: &Target) -> Vec<Case> {
    let waiting = |name: &str, first: Vec<u8>, then: Then| Case {
        name: format!("h2: {name}"),
        sends: Sends { first, then },
        expect: Expect::GivenUp,
        heavy: false,
    };
    let post = request(target, "POST", "/api/v1/reading-sessions/start");
    let open = |flags| [hello(), frame(HEADERS, flags, 1, &post)].concat();
    vec![
        waiting("half of the preface", PREFACE[..12].to_vec(), Then::Nothing),
        waiting("the preface alone", PREFACE.to_vec(), Then::Nothing),
        waiting("settings and no request", hello(), Then::Nothing),
        waiting("headers without their end", open(0), Then::Nothing),
        waiting("a body that never comes", open(END_HEADERS), Then::Nothing),
        waiting(
            "frames a byte at a time",
            hello(),
            Then::Drips(b"\0\0\0\x04\0\0\0\0\0"),
        ),
    ]
}
