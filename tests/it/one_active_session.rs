//! A reader has at most one active session, even if several apps start sessions
//! concurrently (promise I3).

use futures::future::join_all;
use serde_json::json;
use server::config::Role;
use tests::reader::id;
use tests::{App, invariants};
use uuid::Uuid;

#[tokio::test]
async fn superseded_session_keeps_its_last_position() {
    let app = App::start().await;
    let reader = app.reader();
    let old = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(old, 42.0).await.ok();
    let new = id(&reader.start(Uuid::new_v4()).await.ok());

    let superseded = reader.session(old).await.ok();
    assert_eq!(superseded["end_position"], 42);
    assert_eq!(superseded["end_reason"], "superseded");
    assert_eq!(superseded["is_active"], false);
    assert_eq!(id(&reader.active().await.ok()), new);

    // A newer observation makes it active again.
    let resumed = reader.update(old, 50.0).await.ok();
    assert_eq!(resumed["is_active"], true);
    assert_eq!(id(&reader.active().await.ok()), old);
    assert_eq!(reader.session(new).await.ok()["end_reason"], "superseded");
    invariants::check(&app).await;
}

#[tokio::test]
async fn concurrent_starts_leave_exactly_one_active_session() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Api]).await;
    let reader = app.reader();
    // Half of the starts go through another process, because the event log must
    // decide and not a lock in one process.
    let starts = (0..200).map(|n| {
        let reader = if n % 2 == 0 {
            reader.clone()
        } else {
            reader.at(&other.url)
        };
        async move { reader.start(Uuid::new_v4()).await }
    });
    for response in join_all(starts).await {
        assert_eq!(response.status, 201, "{}", response.body);
    }
    invariants::check(&app).await;
    let sessions = invariants::fold(&invariants::read_log(&app.pool).await);
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
async fn updates_through_two_processes_are_all_kept() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Api]).await;
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
    for response in join_all(updates).await {
        assert_eq!(response.status, 200, "{}", response.body);
    }
    invariants::check(&app).await;
    assert_eq!(reader.session(session).await.ok()["version"], 61);
}

#[tokio::test]
async fn end_in_one_process_takes_effect_in_the_other() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Api]).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    // The other process caches the session as it was before the end.
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
    invariants::check(&app).await;
}
