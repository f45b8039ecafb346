//! Graceful shutdown on SIGTERM: open requests receive responses, acknowledged
//! commands are in the log, and the process exits.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tests::app::SETTLE;
use tests::process::Process;
use tests::reader::id;
use tests::{Reader, Stack, app, invariants, scaled, until};
use uuid::Uuid;

/// The sum of all shutdown deadlines, with a margin.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(50);

#[tokio::test]
async fn sigterm_under_load_loses_no_acknowledged_command() {
    let stack = Stack::shared().await;
    let env = stack.new_env().await;
    let pool = app::pool(&env).await;
    let process = Process::start(&env).await;
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
            tokio::spawn(async move {
                let session = id(&reader.start(Uuid::new_v4()).await.ok());
                let mut acknowledged = 1;
                loop {
                    let path = format!("/{session}/update");
                    let update = serde_json::json!({ "current_position": acknowledged % 100 });
                    match reader
                        .try_call(reqwest::Method::PUT, &path, Some(update))
                        .await
                    {
                        Ok(response) if response.status == 200 => acknowledged += 1,
                        Ok(response) => panic!("{}: {}", response.status, response.body),
                        Err(_) => return acknowledged,
                    }
                }
            })
        })
        .collect();
    until("300 events in the log", 2 * SETTLE, async || {
        invariants::read_log(&pool).await.len() >= 300
    })
    .await;
    let status = process.terminate().await;
    assert!(status.success(), "{status}");
    let acknowledged: usize = join_all(clients)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    let written = invariants::read_log(&pool).await.len();
    // Each client may have one command in the log without a response, if its
    // connection closed in between. No acknowledged command may be missing.
    assert!(
        written >= acknowledged,
        "{written} written, {acknowledged} acknowledged"
    );
    assert!(
        written - acknowledged <= 20,
        "{written} written, {acknowledged} acknowledged"
    );

    let process = Process::start(&env).await;
    app::settled(&pool, &env).await;
    invariants::check_env(&pool, &env).await;
    assert!(process.terminate().await.success());
}

#[tokio::test]
async fn sigterm_ends_the_process_while_postgres_hangs() {
    let stack = Stack::dedicated().await;
    let process = Process::start(&stack.new_env().await).await;
    let reader = Reader::with_id(Uuid::new_v4()).at(&process.url);
    let session = id(&reader.start(Uuid::new_v4()).await.ok());

    stack.servers.lock().await.postgres.pause().unwrap();
    let body = json!({ "current_position": 1 });
    let path = format!("/{session}/update");
    let open = tokio::spawn(async move { reader.try_call(Method::PUT, &path, Some(body)).await });
    let status = tokio::time::timeout(scaled(SHUTDOWN_TIMEOUT), process.terminate()).await;
    assert!(status.expect("the process ends").success());
    // The request may have arrived after the signal, without a response.
    if let Ok(response) = open.await.unwrap() {
        assert_eq!(response.status, 503);
    }
    stack.servers.lock().await.postgres.resume().unwrap();
}
