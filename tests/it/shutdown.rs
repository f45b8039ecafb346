//! SIGTERM: open requests are answered, what was acknowledged is written, and
//! the process ends by itself.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use tests::process::Process;
use tests::reader::id;
use tests::{Reader, Stack, app, check};
use uuid::Uuid;

/// The deadlines of a stop, one after the other, and some for a busy machine.
const LONGEST_STOP: Duration = Duration::from_secs(50);

#[tokio::test]
async fn sigterm_under_load_answers_what_it_took_and_loses_nothing() {
    let stack = Stack::shared().await;
    let corner = stack.corner().await;
    let pool = app::pool(&corner).await;
    let process = Process::start(&corner).await;
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let reader = Reader::of(Uuid::new_v4()).at(&process.url);
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
                        Ok(answer) if answer.status == 200 => acknowledged += 1,
                        Ok(answer) => panic!("{}: {}", answer.status, answer.body),
                        Err(_) => return acknowledged,
                    }
                }
            })
        })
        .collect();
    while check::log(&pool).await.len() < 300 {
        tokio::task::yield_now().await;
    }
    let status = process.terminate().await;
    assert!(status.success(), "{status}");
    let acknowledged: usize = join_all(clients)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    let written = check::log(&pool).await.len();
    // A connection that closes between two requests may have swallowed one;
    // but nothing that was answered is missing, and nothing is half done.
    assert!(
        written >= acknowledged,
        "{written} written, {acknowledged} acknowledged"
    );
    assert!(
        written - acknowledged <= 20,
        "{written} written, {acknowledged} acknowledged"
    );

    let process = Process::start(&corner).await;
    app::settled(&pool, &corner).await;
    check::all(&pool, &corner).await;
    assert!(process.terminate().await.success());
}

#[tokio::test]
async fn sigterm_ends_the_process_also_while_postgres_hangs() {
    let stack = Stack::own().await;
    let process = Process::start(&stack.corner().await).await;
    let reader = Reader::of(Uuid::new_v4()).at(&process.url);
    let session = id(&reader.start(Uuid::new_v4()).await.ok());

    stack.servers.lock().await.postgres.pause().unwrap();
    let body = json!({ "current_position": 1 });
    let path = format!("/{session}/update");
    let open = tokio::spawn(async move { reader.try_call(Method::PUT, &path, Some(body)).await });
    let status = tokio::time::timeout(LONGEST_STOP, process.terminate()).await;
    assert!(status.expect("it ends").success());
    // It may not have been accepted before the signal.
    if let Ok(answer) = open.await.unwrap() {
        assert_eq!(answer.status, 503);
    }
    stack.servers.lock().await.postgres.resume().unwrap();
}
