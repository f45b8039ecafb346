//! Ctrl-C, and a service that hangs or is killed during a run.

use serde_json::Value;
use sqlx::PgPool;
use tests::app::{SETTLE, pool};
use tests::process::Process;
use tests::{App, Stack, scaled};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{PATIENT, active_sessions, address, events, figure, finish, load, sessions_started};

async fn interrupt(child: &Child) {
    let pid = child.id().expect("the command is running").to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(sent.unwrap().success());
}

/// A service in a process of its own, its database, and a run of eight users against it.
async fn loaded(seconds: &str) -> (Process, PgPool, Child) {
    let env = Stack::shared().await.new_env().await;
    let service = Process::start(&env).await;
    let mut arguments = vec!["--users", "8", "--spawn-rate", "100", "-o", "json"];
    arguments.extend(["--seconds", seconds]);
    let address = format!("http://{}", service.http);
    let child = load(&address, &arguments).spawn().unwrap();
    (service, pool(&env).await, child)
}

#[tokio::test]
async fn ctrl_c_ends_the_run_early_and_prints_the_report() {
    let app = App::start().await;
    let mut arguments = vec!["--users", "8", "--spawn-rate", "100", "--seconds", "600"];
    arguments.extend(["-o", "json"]);
    arguments.extend(PATIENT);
    let child = load(address(&app), &arguments).spawn().unwrap();
    sessions_started(&app.pool, 2).await;
    interrupt(&child).await;
    let report = finish(child).await.report(0);
    assert_eq!(report["stopped_early"], true);
    assert!(report["seconds"].as_f64().unwrap() < 60.0);
    assert_eq!(report["readers"]["sessions_not_ended"], 0);
    let started = events(&app.pool, "SessionStarted", None).await;
    assert_eq!(figure(&report, "start", "requests"), started);
    assert_eq!(active_sessions(&app.pool).await, 0);
}

#[tokio::test]
async fn second_ctrl_c_does_not_wait_for_a_service_that_hangs() {
    let (service, pool, mut child) = loaded("600").await;
    sessions_started(&pool, 2).await;
    service.signal("-STOP").await;
    interrupt(&child).await;
    // The command waits for requests in progress, or to end the sessions.
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits = async {
        while let Some(line) = err.next_line().await.unwrap() {
            if line.starts_with("Stopping") || line.starts_with("Ending") {
                return;
            }
        }
        panic!("the command did not wait");
    };
    tokio::time::timeout(scaled(SETTLE), waits).await.unwrap();
    interrupt(&child).await;
    let finished = tokio::time::timeout(scaled(SETTLE), finish(child));
    let finished = finished.await.unwrap();
    service.kill().await;
    let report: Value = serde_json::from_str(&finished.out).unwrap();
    assert_eq!(report["stopped_early"], true);
    assert!(report["readers"]["sessions_not_ended"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn service_that_stops_during_the_run_is_reported_as_errors() {
    let (service, pool, child) = loaded("8").await;
    sessions_started(&pool, 4).await;
    service.kill().await;
    let report = finish(child).await.report(1);
    let failed = report["total"]["failures"]["connection"].as_u64().unwrap();
    assert!(failed > 0, "{report:#}");
    assert_eq!(figure(&report, "total", "errors"), failed);
    assert!(report["readers"]["sessions_not_ended"].as_u64().unwrap() > 0);
}
