//! The command `load`: its figures equal the log, its exit codes distinguish missed criteria
//! from failures, and it leaves no active session.

mod interruptions;
mod readers;
mod refusals;

use std::process::Stdio;

use serde_json::Value;
use sqlx::PgPool;
use tests::app::{SECRET, SETTLE};
use tests::process::executable;
use tests::{App, until};
use tokio::process::{Child, Command};

/// Criteria that a busy machine meets, without errors.
const PATIENT: [&str; 6] = [
    "--max-error-percent",
    "0",
    "--max-p95",
    "10000",
    "--max-p99",
    "20000",
];

struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Finished {
    #[track_caller]
    fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn report(&self, code: i32) -> Value {
        serde_json::from_str(&self.expect_code(code).out).unwrap()
    }
}

/// The command without settings of the calling shell.
fn load(address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(executable());
    for variable in [
        "JWT_SECRET_FILE",
        "JWKS_URL",
        "JWKS_FILE",
        "JWT_ISSUER",
        "JWT_AUDIENCE",
    ] {
        command.env_remove(variable);
    }
    command
        .env("JWT_SECRET", SECRET)
        .arg("load")
        .arg(address)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn finish(child: Child) -> Finished {
    let output = child.wait_with_output().await.unwrap();
    Finished {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn run(address: &str, arguments: &[&str]) -> Finished {
    finish(load(address, arguments).spawn().unwrap()).await
}

/// The address of a service in the test process.
fn address(app: &App) -> &str {
    app.url.strip_suffix("/api/v1/reading-sessions").unwrap()
}

/// Events of a type in the log, with a reason if one is given.
async fn events(pool: &PgPool, name: &str, reason: Option<&str>) -> u64 {
    let count: i64 = sqlx::query_scalar(
        "select count(*) from events
        where event_type = $1 and ($2::text is null or payload->>'reason' = $2)",
    )
    .bind(name)
    .bind(reason)
    .fetch_one(pool)
    .await
    .unwrap();
    count.unsigned_abs()
}

async fn active_sessions(pool: &PgPool) -> u64 {
    let count: i64 = sqlx::query_scalar("select count(*) from claims")
        .fetch_one(pool)
        .await
        .unwrap();
    count.unsigned_abs()
}

/// The requests of a call, or of all calls with `total`.
fn figure(report: &Value, call: &str, member: &str) -> u64 {
    let calls = report["calls"].as_array().unwrap().iter();
    let mut calls = calls.chain([&report["total"]]);
    let call = calls.find(|other| other["call"] == call).unwrap();
    call[member].as_u64().unwrap()
}

/// Waits until the users have started sessions.
async fn sessions_started(pool: &PgPool, count: u64) {
    until("users have started sessions", SETTLE, async || {
        events(pool, "SessionStarted", None).await >= count
    })
    .await;
}

#[tokio::test]
async fn report_equals_the_log_and_no_session_remains_active() {
    let app = App::start().await;
    let mut arguments = vec!["--users", "24", "--spawn-rate", "100", "--seconds", "12"];
    arguments.extend(["-o", "json"]);
    arguments.extend(PATIENT);
    let report = run(address(&app), &arguments).await.report(0);

    assert_eq!(report["users"], 24);
    assert_eq!(report["met"], true);
    assert_eq!(report["stopped_early"], false);
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((12.0..15.0).contains(&seconds), "{seconds}");
    assert_eq!(figure(&report, "total", "errors"), 0);

    let requests = |call| figure(&report, call, "requests");
    let ended = report["readers"]["sessions_ended"].as_u64().unwrap();
    assert!(ended > 0 && report["readers"]["sessions_not_ended"] == 0);
    assert_eq!(
        events(&app.pool, "SessionStarted", None).await,
        requests("start")
    );
    assert_eq!(
        events(&app.pool, "PositionUpdated", None).await,
        requests("update")
    );
    assert_eq!(
        events(&app.pool, "SessionEnded", Some("finished")).await,
        requests("end") + ended
    );
    let calls = ["start", "update", "end", "history", "active"];
    let sum: u64 = calls.into_iter().map(requests).sum();
    assert_eq!(requests("total"), sum);
    // Six burst users send five requests every one to two seconds.
    assert!(requests("active") >= 60, "{report:#}");
    assert!(requests("start") >= 20, "{report:#}");

    // The service counted the same requests, and one before the run.
    let metrics = app.metrics().await;
    let counted = |method: &str, path: &str| {
        metrics.count(&format!(
            "reading_sessions_http_requests_total{{method=\"{method}\",route=\"/api/v1/\
             reading-sessions/{path}\",status=\"200\"}}"
        ))
    };
    assert_eq!(counted("GET", "active"), requests("active") + 1);
    assert_eq!(counted("GET", "history"), requests("history"));

    assert_eq!(active_sessions(&app.pool).await, 0);
    let readers: i64 =
        sqlx::query_scalar("select count(distinct payload->>'reader_id') from events")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    // A reader without a session has requested only the history, at least twice.
    let new = report["readers"]["new"]["count"].as_u64().unwrap();
    let without = new - readers.unsigned_abs();
    assert!(2 * without <= requests("history"), "{without}: {report:#}");
}

#[tokio::test]
async fn missed_criterion_gives_exit_code_1_and_a_readable_report() {
    let app = App::start().await;
    let arguments = [
        "--users",
        "4",
        "--spawn-rate",
        "100",
        "--seconds",
        "3",
        "--max-p95",
        "0",
    ];
    let finished = run(address(&app), &arguments).await;
    let out = &finished.expect_code(1).out;
    for part in ["CALL", "total", "p95", "not met", "Ended", "seq 0 "] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(
        !finished.err.contains("eyJ") && !out.contains("eyJ"),
        "a token"
    );
}

#[tokio::test]
async fn rate_limits_are_errors_and_are_reported_with_a_hint() {
    let app = App::with_settings(|settings| {
        settings.rate_limit.normal = 4.try_into().unwrap();
    })
    .await;
    let arguments = [
        "--users",
        "4",
        "--spawn-rate",
        "100",
        "--seconds",
        "6",
        "-o",
        "json",
    ];
    let report = run(address(&app), &arguments).await.report(1);
    let limited = report["rate_limited"].as_u64().unwrap();
    assert!(limited > 0, "{report:#}");
    assert_eq!(figure(&report, "total", "errors"), limited);
    assert_eq!(report["total"]["failures"]["429"], limited);
    let errors = report["errors"].as_array().unwrap();
    assert!(
        errors
            .iter()
            .all(|error| error["error"] == "429 rate_limited")
    );
    assert!(
        errors[0]["example"]
            .as_str()
            .unwrap()
            .starts_with("Rate limit exceeded")
    );

    let text = run(address(&app), &arguments[..6]).await;
    assert!(
        text.expect_code(1).out.contains("http.md#rate-limits"),
        "{}",
        text.out
    );
}
