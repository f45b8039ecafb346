//! I7 and I8 against clients that mean no good: each ends with a refusal or a
//! closed connection, soon; the others are served as ever; memory stays flat.

mod http1;
mod http2;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use services::api::serve::Limits;
use tests::process::Process;
use tests::reader::id;
use tests::{App, Reader, Stack, check};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use wire::{BOUND, Sends, answers, exchange};

/// How many hostile clients there are at a time.
const AT_ONCE: usize = 32;

/// Where the hostile clients call, with a good token of a reader who has an
/// active session: they are past the door, and as far in as they can come.
#[derive(Clone, Debug)]
struct Target {
    address: SocketAddr,
    token: String,
    session: Uuid,
}

/// One of the corpus.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    sends: Sends,
    expect: Expect,
    /// Whether it takes much time.
    heavy: bool,
}

/// How it must end. Every HTTP/1.1 connection must be closed, too.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// A refusal by the service, as a problem with this status.
    Problem(u16),
    /// A refusal of what is not HTTP, with this status and without a body.
    Bare(u16),
    /// One of these two, unless the connection was closed before the client
    /// had sent so much that it came to read.
    Cut(u16),
    /// No answer.
    Closed,
    /// A refusal or no answer.
    Ended,
    /// This many good answers: it was harmless, or what did harm is ignored.
    Good(usize),
    /// HTTP/2: the connection is closed.
    GivenUp,
    /// HTTP/2: the connection is closed, or served on.
    GivenUpOrServed,
}

impl Target {
    async fn of(reader: &Reader, address: SocketAddr) -> Self {
        Self {
            address,
            token: reader.token.clone(),
            session: id(&reader.start(Uuid::new_v4()).await.ok()),
        }
    }
}

impl Case {
    /// What is wrong with how it ended.
    async fn run(&self, target: &Target) -> Result<(), String> {
        let http2 = matches!(self.expect, Expect::GivenUp | Expect::GivenUpOrServed);
        let enough = |seen: &[u8]| http2 && http2::is_settled(seen);
        let seen = exchange(target.address, &self.sends, enough)
            .await
            .ok_or_else(|| format!("{}: still open after {BOUND:?}", self.name))?;
        let fits = if http2 {
            Ok(matches!(self.expect, Expect::GivenUpOrServed) || http2::is_given_up(&seen))
        } else {
            answers(&seen).map(|answers| self.expect.fits(&answers))
        };
        let shown = || String::from_utf8_lossy(&seen[..seen.len().min(600)]).into_owned();
        match fits {
            Ok(true) if !shown().contains("\nInjected") => Ok(()),
            Ok(_) => Err(format!("{}: not {:?}: {}", self.name, self.expect, shown())),
            Err(error) => Err(format!("{}: {error}: {}", self.name, shown())),
        }
    }
}

impl Expect {
    fn fits(self, answers: &[wire::Answer]) -> bool {
        let refused = |status: u16| matches!(answers, [one] if one.status == status && (one.is_problem() || one.body.is_empty()));
        match self {
            Self::Problem(status) => {
                matches!(answers, [one] if one.status == status && one.is_problem())
            }
            Self::Bare(status) => {
                matches!(answers, [one] if one.status == status && one.body.is_empty())
            }
            Self::Cut(status) => answers.is_empty() || refused(status),
            Self::Closed => answers.is_empty(),
            Self::Ended => answers.is_empty() || (400..500).any(refused),
            Self::Good(count) => {
                answers.len() == count && answers.iter().all(|one| one.status == 200)
            }
            Self::GivenUp | Self::GivenUpOrServed => false,
        }
    }
}

/// All that can be sent in one go.
fn corpus(target: &Target) -> Vec<Case> {
    let mut cases = http1::cases(target);
    cases.extend(http2::cases(target));
    cases
}

/// All that takes its time.
fn slow(target: &Target) -> Vec<Case> {
    let mut cases = http1::slow(target);
    cases.extend(http2::slow(target));
    cases
}

/// Runs cases side by side; names those that did not end as they must.
async fn run(target: &Target, cases: Vec<Case>) -> Vec<String> {
    stream::iter(cases)
        .map(async |case| case.run(target).await.err())
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// As [`run`], and after each case a good request must be answered.
async fn run_and_ask(target: &Target, cases: Vec<Case>, reader: &Reader) -> Vec<String> {
    let mut failures = Vec::new();
    for case in cases {
        let name = case.name.clone();
        failures.extend(run(target, vec![case]).await);
        let after = reader.active().await;
        if after.status != 200 {
            failures.push(format!("{name}: and then {}", after.status));
        }
    }
    failures
}

fn none(failures: &[String]) {
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn address(app: &App) -> SocketAddr {
    let (_, rest) = app.url.split_once("//").unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_hostile_request_is_refused_and_the_next_good_one_is_answered() {
    let app = App::start().await;
    let reader = app.reader();
    let target = Target::of(&reader, address(&app)).await;
    none(&run_and_ask(&target, corpus(&target), &reader).await);
    check::everything(&app).await;
}

#[tokio::test]
async fn clients_that_keep_the_service_waiting_are_cut_off() {
    let app = App::with(|settings| {
        settings.http.limits = Limits {
            head: Duration::from_millis(200),
            body: Duration::from_millis(200),
            idle: Duration::from_millis(400),
        };
    })
    .await;
    let reader = app.reader();
    let target = Target::of(&reader, address(&app)).await;
    none(&run(&target, slow(&target)).await);
    assert_eq!(reader.active().await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_cut_off() {
    let app = App::with(|settings| settings.http.limits.idle = Duration::from_millis(200)).await;
    let mut stream = TcpStream::connect(address(&app)).await.unwrap();
    // Answers that are large, until neither side can send any more.
    let ask = b"GET /openapi.json HTTP/1.1\r\nHost: reading\r\n\r\n";
    let sending = async { while stream.write_all(ask).await.is_ok() {} };
    tokio::time::timeout(BOUND, sending)
        .await
        .expect("the connection is closed in the end");
    assert_eq!(app.reader().active().await.status, 200);
}

#[tokio::test]
async fn a_connection_that_was_served_may_be_idle_for_longer_than_a_new_one() {
    let app = App::with(|settings| settings.http.limits.head = Duration::from_millis(100)).await;
    let reader = app.reader();
    let target = Target::of(&reader, address(&app)).await;
    let get = |connection: &str| {
        format!(
            "GET /api/v1/reading-sessions/active HTTP/1.1\r\nConnection: {connection}\r\n\
             Authorization: Bearer {}\r\n\r\n",
            target.token
        )
    };
    // The second one comes a byte at a time, and takes longer than the first
    // might have taken.
    let sends = Sends {
        first: get("keep-alive").into_bytes(),
        then: wire::Then::Drips(Box::leak(get("close").into_boxed_str()).as_bytes()),
    };
    let seen = exchange(target.address, &sends, |_| false).await.unwrap();
    assert!(Expect::Good(2).fits(&answers(&seen).unwrap()));
}

#[tokio::test]
async fn http_2_without_tls_is_served() {
    let app = App::start().await;
    let target = Target::of(&app.reader(), address(&app)).await;
    let path = format!("/api/v1/reading-sessions/{}", target.session);
    let (sends, ends) = http2::good(&target, &path);
    let seen = exchange(target.address, &sends, ends).await.unwrap();
    let body = http2::body_of_ok(&seen).expect("200 and a body");
    let session: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(id(&session), target.session);
}

/// Rounds of the whole corpus, and how often the heavy cases come along.
const ROUNDS: usize = 200;
const HEAVY: usize = 40;
/// Rounds after which pools, caches and buffers have their size.
const WARM: usize = 20;
/// What may be held in addition after all rounds, some 45,000 requests: less
/// than 400 bytes for each.
const MAX_GROWTH_KB: u64 = 16 * 1024;

#[tokio::test]
async fn memory_stays_flat() {
    let stack = Stack::shared().await;
    let corner = stack.corner().await;
    let process = Process::start(&corner).await;
    let reader = Reader::of(Uuid::new_v4()).at(&process.url);
    let target = Target::of(&reader, process.http).await;
    let pid = process.pid().unwrap();

    // Clients that let it wait are there all the time.
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
    for round in 0..WARM + ROUNDS {
        if round == WARM {
            before = resident_kb(pid);
        }
        let mut cases = corpus(&target);
        cases.retain(|case| !case.heavy || round % HEAVY == 0);
        none(&run(&target, cases).await);
        assert_eq!(reader.active().await.status, 200, "round {round}");
    }
    let after = resident_kb(pid);
    for waiting in waiting {
        waiting.abort();
    }
    println!("resident: {before} KB before, {after} KB after");
    assert!(
        after <= before + MAX_GROWTH_KB,
        "grew from {before} to {after} KB"
    );
    assert!(process.terminate().await.success());
}

/// The memory of a process, as Linux counts it.
fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}
