//! Missing, contradictory and malformed body lengths.

use super::{case, endless, get, get_with, heavy, put, put_with};
use crate::hostile::{Case, Expect, Target};

pub fn cases(target: &Target) -> Vec<Case> {
    use Expect::{Good, Problem, RefusedOrClosed, StatusOnly};
    let chunked = "Transfer-Encoding: chunked\r\n";
    let body = b"{\"current_position\": 7}";
    let smuggled = [
        b"0\r\n\r\n".to_vec(),
        get(target, "/api/v1/reading-sessions/active"),
    ]
    .concat();
    vec![
        case(
            "both lengths",
            put_with(
                target,
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                &smuggled,
            ),
            Problem(400),
        ),
        case(
            "both lengths, the other way round",
            put_with(
                target,
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                &smuggled,
            ),
            Problem(400),
        ),
        case(
            "two lengths",
            put_with(target, "Content-Length: 23\r\nContent-Length: 5\r\n", body),
            StatusOnly(400),
        ),
        case(
            "two equal lengths",
            put_with(target, "Content-Length: 23\r\nContent-Length: 23\r\n", body),
            Good(1),
        ),
        case(
            "a list of lengths",
            put_with(target, "Content-Length: 23, 23\r\n", body),
            StatusOnly(400),
        ),
        case(
            "a negative length",
            put_with(target, "Content-Length: -1\r\n", body),
            StatusOnly(400),
        ),
        case(
            "a length with a plus",
            put_with(target, "Content-Length: +23\r\n", body),
            StatusOnly(400),
        ),
        case(
            "a hexadecimal length",
            put_with(target, "Content-Length: 0x17\r\n", body),
            StatusOnly(400),
        ),
        case(
            "a length beyond 64 bits",
            put_with(target, "Content-Length: 18446744073709551616\r\n", body),
            StatusOnly(400),
        ),
        case(
            "a length of 64 bits",
            put_with(target, "Content-Length: 18446744073709551615\r\n", body),
            StatusOnly(431),
        ),
        case(
            "an encoding after chunks",
            put_with(target, "Transfer-Encoding: chunked, gzip\r\n", body),
            StatusOnly(400),
        ),
        case(
            "an unknown encoding",
            put_with(target, "Transfer-Encoding: cow\r\n", body),
            StatusOnly(400),
        ),
        case(
            "chunks in HTTP/1.0",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            StatusOnly(400),
        ),
        case(
            "chunks",
            put_with(
                target,
                chunked,
                "17\r\n{\"current_position\": 7}\r\n0\r\n\r\n",
            ),
            Good(1),
        ),
        case(
            "a chunk whose size is no number",
            put_with(target, chunked, "zz\r\n{}\r\n0\r\n\r\n"),
            Problem(400),
        ),
        case(
            "a negative chunk",
            put_with(target, chunked, "-2\r\n{}\r\n0\r\n\r\n"),
            Problem(400),
        ),
        case(
            "a chunk beyond 64 bits",
            put_with(target, chunked, "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            Problem(400),
        ),
        case(
            "a chunk that is longer than its size",
            put_with(target, chunked, "2\r\n{}garbage\r\n0\r\n\r\n"),
            Problem(400),
        ),
        case(
            "extensions of a chunk without end",
            endless(put_with(target, chunked, "2;"), "x"),
            RefusedOrClosed(400),
        ),
        case(
            "trailers without end",
            endless(put_with(target, chunked, "2\r\n{}\r\n0\r\n"), "x: y\r\n"),
            RefusedOrClosed(400),
        ),
        heavy(
            "chunks without end",
            endless(put_with(target, chunked, ""), "4\r\n    \r\n"),
            RefusedOrClosed(413),
        ),
        heavy(
            "chunks of one byte",
            endless(put_with(target, chunked, ""), "1\r\n \r\n"),
            RefusedOrClosed(413),
        ),
        case(
            "1 GB",
            endless(
                put_with(target, "Content-Length: 1000000000\r\n", ""),
                [b' '; 64],
            ),
            RefusedOrClosed(413),
        ),
        case(
            "64 KB and a byte",
            put(target, vec![b' '; 64 * 1024 + 1]),
            RefusedOrClosed(413),
        ),
        case(
            "a body where none belongs",
            get_with(target, "Content-Length: 5\r\n\r\nhello"),
            Good(1),
        ),
        case(
            "continue after 100",
            put_with(
                target,
                "Expect: 100-continue\r\nContent-Length: 23\r\n",
                body,
            ),
            Good(1),
        ),
        case(
            "expecting something else",
            put_with(target, "Expect: 200-ok\r\nContent-Length: 23\r\n", body),
            Good(1),
        ),
    ]
}
