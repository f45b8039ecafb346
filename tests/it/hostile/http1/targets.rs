//! Malicious and malformed paths and query strings.

use super::{case, get};
use crate::hostile::{Case, Expect, Target};

pub fn paths(target: &Target) -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("/api/v1/reading-sessions/../../admin", 404),
        ("/api/v1/reading-sessions/%2e%2e/%2e%2e/admin", 404),
        ("/api/v1/reading-sessions/..%2f..%2fadmin", 422),
        ("/api/v1/admin/stats/daily", 404),
        ("//api/v1/reading-sessions/active", 404),
        ("/api/v1//reading-sessions/active", 404),
        ("/api/v1/reading-sessions//active", 404),
        ("/api/v1/reading-sessions/active/", 404),
        ("/api/v1/reading-sessions/active;x=y", 422),
        ("/api/v1/reading-sessions/active%2fx", 422),
        ("/api/v1/reading-sessions/active%00", 422),
        ("/api/v1/reading-sessions/%00", 422),
        ("/api/v1/reading-sessions/%ff%fe", 422),
        ("/api/v1/reading-sessions/%", 422),
        ("/api/v1/reading-sessions/%zz", 422),
        ("/api/v1/reading-sessions/ACTIVE", 422),
        ("/api/v1/reading-sessions/*", 422),
        ("/api/v1/reading-sessions/{id}", 422),
        ("/api/v1/reading-sessions/'%20or%201=1--", 422),
        (
            "/api/v1/reading-sessions/00000000-0000-0000-0000-000000000000",
            404,
        ),
        (
            "/api/v1/reading-sessions/ffffffff-ffff-ffff-ffff-ffffffffffff",
            404,
        ),
        ("http://elsewhere/api/v1/admin", 404),
        ("/.env", 404),
        ("/metrics", 404),
        ("/docs/../../../etc/passwd", 404),
        ("/docs/%2e%2e/%2e%2e/etc/passwd", 404),
    ]
    .map(|(path, status)| case(path, get(target, path), Expect::Problem(status)))
    .into();
    let long = format!("/api/v1/reading-sessions/{}", "0".repeat(8_000));
    let raw = b"/api/v1/reading-sessions/\xff\xfe";
    cases.push(case(
        "an id of 8,000 digits",
        get(target, long),
        Expect::Problem(422),
    ));
    cases.push(case(
        "a path that is not UTF-8",
        get(target, raw),
        Expect::StatusOnly(400),
    ));
    cases
}

pub fn queries(target: &Target) -> Vec<Case> {
    let history = |query: &str| get(target, format!("/api/v1/reading-sessions/history?{query}"));
    let mut cases: Vec<Case> = [
        ("page_size=-1", 422),
        ("page_size=0", 422),
        ("page_size=18446744073709551616", 422),
        ("page_size=9223372036854775807", 422),
        ("page_size=1e2", 422),
        ("page_size=%31%00", 422),
        ("page_size=%ff", 422),
        ("page_size=", 422),
        ("page_size=1&page_size=2", 422),
        ("page_size=1&limit=2", 422),
        ("page=0", 422),
        ("page=-1", 422),
        ("page=9223372036854775807", 422),
        ("page=9223372036854775808", 422),
        ("book_id=%00", 400),
        ("book_id=%ff", 400),
        ("book_id='%20or%201=1--", 400),
        ("cursor=%00", 400),
        ("cursor=%ff%fe", 400),
        ("cursor=../../etc/passwd", 400),
        ("min_position=99999999999999999999", 422),
        ("min_position=-1", 422),
    ]
    .map(|(query, status)| case(query, history(query), Expect::Problem(status)))
    .into();
    for query in ["page_size[]=1", "%70age_size=1", "&&&&=&=&", "%", "%zz=%zz"] {
        cases.push(case(query, history(query), Expect::Good(1)));
    }
    let long = format!("cursor={}", "A".repeat(10_000));
    let many = "a=b&".repeat(2_000);
    cases.push(case(
        "a cursor of 10,000 letters",
        history(&long),
        Expect::Problem(400),
    ));
    cases.push(case("2,000 parameters", history(&many), Expect::Good(1)));
    cases
}
