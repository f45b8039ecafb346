//! Valid and invalid JSON bodies.

use super::{case, put};
use crate::hostile::{Case, Expect, Target};

pub fn cases(target: &Target) -> Vec<Case> {
    let deep = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let inside =
        |field: &str, deep: String| format!("{{\"current_position\": 1, \"{field}\": {deep}}}");
    let objects = |count: usize| format!("{}1{}", "{\"a\":".repeat(count), "}".repeat(count));
    let position = |number: &str| format!("{{\"current_position\": {number}}}");
    let spaces = " ".repeat(64 * 1024 - 23);
    let refused = [
        ("nothing", String::new(), 400),
        ("spaces", " ".repeat(60_000), 400),
        ("brackets 30,000 deep", deep(30_000), 422),
        ("brackets 30,000 deep, open", "[".repeat(30_000), 422),
        ("objects 9,000 deep", objects(9_000), 422),
        (
            "a key twice",
            "{\"current_position\": 1, \"current_position\": 2}".into(),
            422,
        ),
        ("u64::MAX", position("18446744073709551615"), 422),
        ("more than u64::MAX", position("18446744073709551616"), 422),
        ("i64::MIN", position("-9223372036854775808"), 422),
        ("1e400", position("1e400"), 400),
        (
            "a number of 50,000 digits",
            position(&"9".repeat(50_000)),
            400,
        ),
        ("a hexadecimal number", position("0x10"), 400),
        ("a number that begins with 0", position("010"), 400),
        ("NaN", position("NaN"), 400),
        ("infinity in a string", position("\"1e400\""), 422),
        (
            "a number of 50,000 digits in a string",
            position(&format!("\"{}\"", "9".repeat(50_000))),
            422,
        ),
        ("a BOM", format!("\u{feff}{}", position("1")), 400),
        (
            "a control character",
            inside("locator", "\"\u{1}\"".into()),
            400,
        ),
        ("a comment", "{/* */\"current_position\": 1}".into(), 400),
        (
            "a comma at the end",
            "{\"current_position\": 1,}".into(),
            400,
        ),
        ("single quotes", "{'current_position': 1}".into(), 400),
        ("two values", "{\"current_position\": 1}{}".into(), 400),
        ("another shape", "[1]".into(), 422),
    ];
    let accepted = [
        // A locator is a hint: it never refuses the position.
        ("a locator 30,000 deep", inside("locator", deep(30_000))),
        ("a lone surrogate", inside("locator", "\"\\ud800\"".into())),
        (
            "surrogates in the wrong order",
            inside("locator", "\"\\udc00\\ud800\"".into()),
        ),
        ("a NUL", inside("locator", "\"\\u0000\"".into())),
        ("minus zero", position("-0")),
        ("minus zero with a point", position("-0.0")),
        ("1e-400", position("1e-400")),
        (
            "5,000 decimals",
            position(&format!("1.{}", "3".repeat(5_000))),
        ),
        ("a number in a string", position("\"42\"")),
        ("64 KB of spaces", format!("{}{spaces}", position("1"))),
        (
            "10,000 unknown fields",
            format!("{{{}\"current_position\": 1}}", "\"a\":1,".repeat(9_000)),
        ),
        (
            "a pair of surrogates",
            inside("locator", "\"\\ud83d\\ude00\"".into()),
        ),
        (
            "a prototype",
            inside("__proto__", "{\"is_admin\": true}".into()),
        ),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, body, status) in refused {
        cases.push(case(
            format!("JSON: {name}"),
            put(target, body),
            Expect::Problem(status),
        ));
    }
    for (name, body) in accepted {
        cases.push(case(
            format!("JSON: {name}"),
            put(target, body),
            Expect::Good(1),
        ));
    }
    let open = put(target, deep(100_000));
    cases.push(case(
        "JSON: brackets 100,000 deep",
        open,
        Expect::RefusedOrClosed(413),
    ));
    for (name, bytes) in [
        ("JSON: not UTF-8", &b"{\"current_position\": \"\xff\"}"[..]),
        (
            "JSON: an overlong encoding",
            b"{\"current_position\": \"\xc0\xaf\"}",
        ),
        ("JSON: UTF-16", b"\xff\xfe{\0}\0"),
    ] {
        cases.push(case(name, put(target, bytes), Expect::Problem(400)));
    }
    cases
}
