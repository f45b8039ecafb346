//! Promises I7 (bounded latency and memory) and I8 (bad input leaves no state)
//! against hostile clients. Each hostile request soon ends with a 4xx response
//! or a closed connection. Other clients are still served, and memory stays flat.

mod connections;
mod http1;
mod http2;
mod unread;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use api::serve::ClientTimeouts;
use futures::StreamExt;
use futures::stream;
use tests::process::Process;
use tests::reader::id;
use tests::{App, Reader, Stack, invariants};
use uuid::Uuid;

use wire::{CASE_TIMEOUT, Input, exchange, responses};

/// Hostile clients that run concurrently.
const CONCURRENCY: usize = 32;

/// The address that hostile clients call, with a valid token of a reader who
/// has an active session. The service therefore processes their requests as far
/// as it can.
#[derive(Clone, Debug)]
struct Target {
    address: SocketAddr,
    token: String,
    session: Uuid,
}

/// A hostile client and the expected end of its connection.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    input: Input,
    expect: Expect,
    /// Takes long; runs only in some rounds of the memory test.
    heavy: bool,
}

/// The expected end. In addition, every HTTP/1.1 connection must be closed.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// A problem document with this status.
    Problem(u16),
    /// A response with this status and without a body, to malformed HTTP.
    StatusOnly(u16),
    /// [`Expect::Problem`] or [`Expect::StatusOnly`], or no response if the
    /// connection was closed while the client was still sending.
    RefusedOrClosed(u16),
    /// No response.
    Closed,
    /// A response with any 4xx status, or no response.
    AnyRefusalOrClosed,
    /// This many 200 responses: the request is harmless, or the service ignores
    /// its harmful part.
    Good(usize),
    /// HTTP/2: the server closes the connection.
    Http2Closed,
    /// HTTP/2: the server closes the connection or continues to serve it.
    Http2ClosedOrServed,
}

impl Target {
    async fn new(reader: &Reader, address: SocketAddr) -> Self {
        Self {
            address,
            token: reader.token.clone(),
            session: id(&reader.start(Uuid::new_v4()).await.ok()),
        }
    }
}

impl Case {
    /// # Errors
    /// A description of the difference from the expected end.
    async fn run(&self, target: &Target) -> Result<(), String> {
        let http2 = matches!(
            self.expect,
            Expect::Http2Closed | Expect::Http2ClosedOrServed
        );
        let enough = |seen: &[u8]| http2 && http2::is_settled(seen);
        let seen = exchange(target.address, &self.input, enough)
            .await
            .ok_or_else(|| format!("{}: still open after {CASE_TIMEOUT:?}", self.name))?;
        let matches = if http2 {
            Ok(matches!(self.expect, Expect::Http2ClosedOrServed) || http2::is_closed(&seen))
        } else {
            responses(&seen).map(|responses| self.expect.matches(&responses))
        };
        let shown = || String::from_utf8_lossy(&seen[..seen.len().min(600)]).into_owned();
        match matches {
            Ok(true) if !shown().contains("\nInjected") => Ok(()),
            Ok(_) => Err(format!(
                "{}: expected {:?}, got: {}",
                self.name,
                self.expect,
                shown()
            )),
            Err(error) => Err(format!("{}: {error}: {}", self.name, shown())),
        }
    }
}

impl Expect {
    fn matches(self, responses: &[wire::Response]) -> bool {
        let refused = |status: u16| matches!(responses, [one] if one.status == status && (one.is_problem() || one.body.is_empty()));
        match self {
            Self::Problem(status) => {
                matches!(responses, [one] if one.status == status && one.is_problem())
            }
            Self::StatusOnly(status) => {
                matches!(responses, [one] if one.status == status && one.body.is_empty())
            }
            Self::RefusedOrClosed(status) => responses.is_empty() || refused(status),
            Self::Closed => responses.is_empty(),
            Self::AnyRefusalOrClosed => responses.is_empty() || (400..500).any(refused),
            Self::Good(count) => {
                responses.len() == count && responses.iter().all(|one| one.status == 200)
            }
            Self::Http2Closed | Self::Http2ClosedOrServed => false,
        }
    }
}

/// The cases whose client sends without pauses.
fn corpus(target: &Target) -> Vec<Case> {
    let mut cases = http1::cases(target);
    cases.extend(http2::cases(target));
    cases
}

/// The cases whose client pauses or trickles bytes.
fn slow(target: &Target) -> Vec<Case> {
    let mut cases = http1::slow(target);
    cases.extend(http2::slow(target));
    cases
}

/// Runs cases concurrently; returns a description of each failure.
async fn run(target: &Target, cases: Vec<Case>) -> Vec<String> {
    stream::iter(cases)
        .map(async |case| case.run(target).await.err())
        .buffer_unordered(CONCURRENCY)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// Like [`run`], but one case at a time; after each, a valid request must succeed.
async fn run_each_then_probe(target: &Target, cases: Vec<Case>, reader: &Reader) -> Vec<String> {
    let mut failures = Vec::new();
    for case in cases {
        let name = case.name.clone();
        failures.extend(run(target, vec![case]).await);
        let after = reader.active().await;
        if after.status != 200 {
            failures.push(format!(
                "{name}: the next valid request returned {}",
                after.status
            ));
        }
    }
    failures
}

fn assert_no_failures(failures: &[String]) {
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn address(app: &App) -> SocketAddr {
    let (_, rest) = app.url.split_once("//").unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn hostile_requests_are_refused_and_valid_ones_still_succeed() {
    let app = App::start().await;
    let reader = app.reader();
    let target = Target::new(&reader, address(&app)).await;
    assert_no_failures(&run_each_then_probe(&target, corpus(&target), &reader).await);
    invariants::check(&app).await;
}

#[tokio::test]
async fn slow_clients_are_disconnected() {
    let app = App::with_settings(|settings| {
        settings.http.timeouts = ClientTimeouts {
            headers: Duration::from_millis(200),
            body: Duration::from_millis(200),
            idle: Duration::from_millis(400),
        };
    })
    .await;
    let reader = app.reader();
    let target = Target::new(&reader, address(&app)).await;
    assert_no_failures(&run(&target, slow(&target)).await);
    assert_eq!(reader.active().await.status, 200);
}

#[tokio::test]
async fn served_connection_may_be_idle_longer_than_a_new_one() {
    let app =
        App::with_settings(|settings| settings.http.timeouts.headers = Duration::from_millis(100))
            .await;
    let reader = app.reader();
    let target = Target::new(&reader, address(&app)).await;
    let get = |connection: &str| {
        format!(
            "GET /api/v1/reading-sessions/active HTTP/1.1\r\nConnection: {connection}\r\n\
             Authorization: Bearer {}\r\n\r\n",
            target.token
        )
    };
    // The second request arrives a byte at a time, and takes longer than the
    // head timeout of a new connection allows.
    let input = Input {
        first: get("keep-alive").into_bytes(),
        then: wire::Then::Drip(Box::leak(get("close").into_boxed_str()).as_bytes()),
    };
    let seen = exchange(target.address, &input, |_| false).await.unwrap();
    assert!(Expect::Good(2).matches(&responses(&seen).unwrap()));
}

#[tokio::test]
async fn http2_without_tls_is_served() {
    let app = App::start().await;
    let target = Target::new(&app.reader(), address(&app)).await;
    let path = format!("/api/v1/reading-sessions/{}", target.session);
    let (input, is_complete) = http2::good(&target, &path);
    let seen = exchange(target.address, &input, is_complete).await.unwrap();
    let body = http2::body_of_ok(&seen).expect("200 and a body");
    let session: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(id(&session), target.session);
}

/// Measured rounds of the whole corpus.
const ROUNDS: usize = 200;
/// The heavy cases run once in this many rounds.
const HEAVY_INTERVAL: usize = 40;
/// Rounds before the measurement, until pools, caches and buffers have reached
/// their size.
const WARM_UP_ROUNDS: usize = 20;
/// Maximum growth over all rounds, which send about 45,000 requests: less than
/// 400 bytes per request.
const MAX_GROWTH_KB: u64 = 16 * 1024;

#[tokio::test]
async fn hostile_traffic_leaves_memory_flat() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let process = Process::start(&env).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let target = Target::new(&reader, process.http).await;
    let pid = process.pid().unwrap();

    // Slow clients are connected during the whole test.
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let target = target.clone();
            tokio::spawn(async move {
                loop {
                    run(&target, slow(&target)).await;
                }
            })
        })
        .collect();
    let mut before = 0;
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            before = resident_kb(pid);
        }
        let mut cases = corpus(&target);
        cases.retain(|case| !case.heavy || round % HEAVY_INTERVAL == 0);
        assert_no_failures(&run(&target, cases).await);
        assert_eq!(reader.active().await.status, 200, "round {round}");
    }
    let after = resident_kb(pid);
    for waiting in waiting {
        waiting.abort();
    }
    println!("resident: {before} KB before, {after} KB after");
    assert!(
        after <= before + MAX_GROWTH_KB,
        "resident memory grew from {before} to {after} KB"
    );
    assert!(process.terminate().await.success());
}

/// The resident memory of a process, from `/proc`, in KB.
fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}
