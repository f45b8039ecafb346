//! Headers that are too many, too long, malformed or misleading.

use uuid::Uuid;

use super::{case, endless, get_with, head, put_with, update_line};
use crate::hostile::{Case, Expect, Target};

pub fn cases(target: &Target) -> Vec<Case> {
    use Expect::{Good, Problem, RefusedOrClosed, StatusOnly};
    let keyed = |key: &str| {
        let headers = format!("Idempotency-Key: {key}\r\nContent-Length: 23\r\n");
        put_with(target, headers, "{\"current_position\": 8}")
    };
    let many = |count: usize| get_with(target, "x: y\r\n".repeat(count));
    vec![
        case("a giant header", get_with(target, format!("X: {}\r\n", "x".repeat(100_000))), RefusedOrClosed(431)),
        case("a header without end", endless(b"GET / HTTP/1.1\r\nX: ".to_vec(), "x"), RefusedOrClosed(431)),
        case("60 headers", many(60), Good(1)),
        case("65 headers", many(65), StatusOnly(431)),
        case("10,000 headers", many(10_000), RefusedOrClosed(431)),
        case("headers without end", endless(b"GET / HTTP/1.1\r\n".to_vec(), "x: y\r\n"), RefusedOrClosed(431)),
        case("a folded header", get_with(target, "X: a\r\n Injected: b\r\n"), StatusOnly(400)),
        case("a space before the colon", get_with(target, "Content-Length : 5\r\n"), StatusOnly(400)),
        case("a header without a name", get_with(target, ": x\r\n"), StatusOnly(400)),
        case("a header without a colon", get_with(target, "Injected\r\n"), StatusOnly(400)),
        case("a NUL in a name", get_with(target, "X\0: y\r\n"), StatusOnly(400)),
        case("a NUL in a value", get_with(target, "X: y\0\r\n"), StatusOnly(400)),
        case("a bare line feed", get_with(target, "X: y\nConnection: close\n"), Good(1)),
        case("a carriage return alone", get_with(target, "X: y\rInjected: z\r\n"), StatusOnly(400)),
        case("a request id with a line break", get_with(target, "X-Request-Id: a\r Injected: b\r\n"), StatusOnly(400)),
        case("a request id with an encoded line break", get_with(target, "X-Request-Id: a%0d%0aInjected: b\r\n"), Good(1)),
        case("a request id that is not ASCII", get_with(target, b"X-Request-Id: \xff\xfe\r\n"), Good(1)),
        case("a giant request id", get_with(target, format!("X-Request-Id: {}\r\n", "x".repeat(10_000))), Good(1)),
        case("two request ids", get_with(target, "X-Request-Id: a\r\nX-Request-Id: b\r\n"), Good(1)),
        case("an invalid trace", get_with(target, "traceparent: 00-'; drop table events; --\r\n"), Good(1)),
        case("an update with an invalid trace", put_with(target, b"traceparent: 00-\xff-\"-\r\nContent-Length: 23\r\n", "{\"current_position\": 8}"), Good(1)),
        case("a key that is not ASCII", keyed("ключ"), Problem(422)),
        case("a giant key", keyed(&"k".repeat(10_000)), Problem(422)),
        case("an empty key", keyed(""), Problem(422)),
        case("two keys", keyed("a\r\nIdempotency-Key: b"), Problem(422)),
        case("a key with a line break", keyed("a\rInjected: b"), StatusOnly(400)),
        case("a key with quotes and SQL", keyed(&format!("';drop/**/table/**/events;--{}", Uuid::new_v4())), Good(1)),
        case("a token that is not ASCII", b"GET /api/v1/reading-sessions/active HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer \xff\r\n\r\n".to_vec(), Problem(401)),
        case("a giant token", format!("GET /api/v1/reading-sessions/active HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n", "a.".repeat(6_000)).into_bytes(), Problem(401)),
        case("a forged address", get_with(target, "X-Forwarded-For: ', 999.1.1.1, \u{7f}::1\r\n"), StatusOnly(400)),
        case("an upgrade to HTTP/2", get_with(target, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"), Good(1)),
        case("an upgrade to a WebSocket", get_with(target, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), Good(1)),
        case("bytes out of range", get_with(target, "Range: bytes=-99999999999999999999,0-0,0-0\r\n"), Good(1)),
        case("a compression bomb", put_with(target, "Content-Encoding: gzip\r\nContent-Length: 10\r\n", b"\x1f\x8b\x08\0\0\0\0\0\0\0"), Problem(415)),
        case("no content type", format!("{}Content-Length: 2\r\n\r\n{{}}", head(target, &update_line(target))).into_bytes(), Problem(415)),
        case("a content type that is not ASCII", [head(target, &update_line(target)).as_bytes(), b"Content-Type: application/json\xff\r\nContent-Length: 2\r\n\r\n{}"].concat(), Problem(415)),
    ]
}
