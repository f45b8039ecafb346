//! Clients that keep the service waiting.

use super::{case, get, put_with};
use crate::hostile::wire::{Sends, Then};
use crate::hostile::{Case, Expect, Target};

pub fn cases(target: &Target) -> Vec<Case> {
    use Expect::{Closed, Good, Problem};
    let slowly =
        |name: &str, first: Vec<u8>, then: Then, expect| case(name, Sends { first, then }, expect);
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
        slowly("nothing at all", Vec::new(), Then::Nothing, Closed),
        slowly("half of a head", half.clone(), Then::Nothing, Closed),
        slowly(
            "headers a byte at a time",
            b"GET / HTTP/1.1\r\n".to_vec(),
            Then::Drips(b"X: y\r\n"),
            Closed,
        ),
        slowly(
            "a target a byte at a time",
            b"GET /".to_vec(),
            Then::Drips(b"a"),
            Closed,
        ),
        slowly(
            "a body that breaks off",
            put_with(target, long, "{"),
            Then::Nothing,
            Problem(408),
        ),
        slowly(
            "a body a byte at a time",
            put_with(target, long, ""),
            Then::Drips(b" "),
            Problem(408),
        ),
        slowly(
            "a body with a key",
            put_with(target, keyed, ""),
            Then::Drips(b" "),
            Problem(408),
        ),
        slowly(
            "chunks that stop",
            put_with(target, chunked, "1\r\n{\r\n"),
            Then::Nothing,
            Problem(408),
        ),
        slowly(
            "chunks a byte at a time",
            put_with(target, chunked, ""),
            Then::Drips(b"1\r\n \r\n"),
            Problem(408),
        ),
        slowly(
            "a body that is expected and never sent",
            put_with(target, format!("{long}Expect: 100-continue\r\n"), ""),
            Then::Nothing,
            Problem(408),
        ),
        slowly(
            "nothing after an answer",
            open.clone(),
            Then::Nothing,
            Good(1),
        ),
        slowly(
            "half of a head after an answer",
            after(&half),
            Then::Nothing,
            Good(1),
        ),
        slowly(
            "headers a byte at a time after an answer",
            after(b"GET / HTTP/1.1\r\n"),
            Then::Drips(b"X: y\r\n"),
            Good(1),
        ),
    ]
}
