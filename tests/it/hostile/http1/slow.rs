//! Clients that pause or trickle bytes.

use super::{case, get, put_with};
use crate::hostile::wire::{Input, Then};
use crate::hostile::{Case, Expect, Target};

pub fn cases(target: &Target) -> Vec<Case> {
    use Expect::{Closed, Good, Problem};
    let slowly =
        |name: &str, first: Vec<u8>, then: Then, expect| case(name, Input { first, then }, expect);
    let open = {
        let text = String::from_utf8(get(target, "/api/v1/reading-sessions/active")).unwrap();
        text.replace("Connection: close\r\n", "").into_bytes()
    };
    let half = open[..20].to_vec();
    let after = |more: &[u8]| [&open[..], more].concat();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let long = "Content-Length: 1000\r\n";
    let keyed = "Content-Length: 1000\r\nIdempotency-Key: slow\r\n";
    vec![
        slowly("nothing at all", Vec::new(), Then::Wait, Closed),
        slowly("half of a head", half.clone(), Then::Wait, Closed),
        slowly(
            "headers a byte at a time",
            b"GET / HTTP/1.1\r\n".to_vec(),
            Then::Drip(b"X: y\r\n"),
            Closed,
        ),
        slowly(
            "a target a byte at a time",
            b"GET /".to_vec(),
            Then::Drip(b"a"),
            Closed,
        ),
        slowly(
            "a body that is cut short",
            put_with(target, long, "{"),
            Then::Wait,
            Problem(408),
        ),
        slowly(
            "a body a byte at a time",
            put_with(target, long, ""),
            Then::Drip(b" "),
            Problem(408),
        ),
        slowly(
            "a body with a key",
            put_with(target, keyed, ""),
            Then::Drip(b" "),
            Problem(408),
        ),
        slowly(
            "chunks that stop",
            put_with(target, chunked, "1\r\n{\r\n"),
            Then::Wait,
            Problem(408),
        ),
        slowly(
            "chunks a byte at a time",
            put_with(target, chunked, ""),
            Then::Drip(b"1\r\n \r\n"),
            Problem(408),
        ),
        slowly(
            "a body that is expected and never sent",
            put_with(target, format!("{long}Expect: 100-continue\r\n"), ""),
            Then::Wait,
            Problem(408),
        ),
        slowly(
            "nothing after a response",
            open.clone(),
            Then::Wait,
            Good(1),
        ),
        slowly(
            "half of a head after a response",
            after(&half),
            Then::Wait,
            Good(1),
        ),
        slowly(
            "headers a byte at a time after a response",
            after(b"GET / HTTP/1.1\r\n"),
            Then::Drip(b"X: y\r\n"),
            Good(1),
        ),
    ]
}
