//! A reader has one active session, however many apps start at once.

use futures::future::join_all;
use serde_json::json;
use services::config::Role;
use tests::reader::id;
use tests::{App, check};
use uuid::Uuid;

#[tokio::test]
async fn a_superseding_start_keeps_the_old_sessions_last_position() {
    let app = App::start().await;
    let reader = app.reader();
    let old = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(old, 42.0).await.ok();
    let new = id(&reader.start(Uuid::new_v4()).await.ok());

    let superseded = reader.session(old).await.ok();
    assert_eq!(superseded["end_position"], 42);
    assert_eq!(superseded["end_reason"], "superseded");
    assert_eq!(superseded["is_active"], false);
    assert_eq!(
        reader.update(old, 50.0).await.problem(400),
        "Cannot update inactive session"
    );
    check::everything(&app).await;
    assert_eq!(id(&reader.active().await.ok()), new);
}

#[tokio::test]
async fn of_200_simultaneous_starts_exactly_one_stays_active() {
    let app = App::start().await;
    let other = app.beside(&[Role::Api]).await;
    let reader = app.reader();
    // Half of them through another process: the log decides, not a lock.
    let starts = (0..200).map(|n| {
        let reader = if n % 2 == 0 {
            reader.clone()
        } else {
            reader.at(&other.url)
        };
        async move { reader.start(Uuid::new_v4()).await }
    });
    for answer in join_all(starts).await {
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    check::everything(&app).await;
    let sessions = check::fold(&check::log(&app.pool).await);
    assert_eq!(sessions.len(), 200);
    let active = sessions
        .values()
        .filter(|folded| folded.session.started().unwrap().is_active())
        .count();
    assert_eq!(active, 1);
    let history = reader.history("?page_size=1").await.ok();
    assert_eq!(history["total"], 200);
}

#[tokio::test]
async fn two_processes_write_one_session_without_losing_an_update() {
    let app = App::start().await;
    let other = app.beside(&[Role::Api]).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let updates = (0..60).map(|n| {
        let reader = if n % 2 == 0 {
            reader.clone()
        } else {
            reader.at(&other.url)
        };
        async move { reader.update(session, f64::from(n)).await }
    });
    for answer in join_all(updates).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    check::everything(&app).await;
    assert_eq!(reader.session(session).await.ok()["version"], 61);
}

#[tokio::test]
async fn an_end_in_one_process_is_an_end_in_the_other() {
    let app = App::start().await;
    let other = app.beside(&[Role::Api]).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    // The other process remembers the session as it was before the end.
    let _ = reader.at(&other.url).update(session, 1.0).await.ok();
    let _ = reader.end(session, json!({})).await.ok();
    assert_eq!(
        reader
            .at(&other.url)
            .update(session, 2.0)
            .await
            .problem(400),
        "Cannot update inactive session"
    );
    assert_eq!(
        reader
            .at(&other.url)
            .end(session, json!({}))
            .await
            .problem(400),
        "Session already ended"
    );
    check::everything(&app).await;
}
