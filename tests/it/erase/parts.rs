//! A reader with many sessions is erased in parts, so that commands of other readers are
//! appended in between.

use domain::ReaderId;
use eventlog::{clock, erase};
use serde_json::json;
use tests::App;
use uuid::Uuid;

use super::overwritten;

/// Sessions of one sync.
const SESSIONS_OF_A_SYNC: usize = 50;
const SYNCS: usize = 11;

#[tokio::test]
async fn many_sessions_are_erased_in_several_transactions() {
    let app = App::start().await;
    let (reader, other) = (app.reader(), app.reader());
    let book = Uuid::new_v4();
    for _ in 0..SYNCS {
        let sessions: Vec<_> = (0..SESSIONS_OF_A_SYNC)
            .map(|n| {
                let at = clock::now() - chrono::TimeDelta::minutes(n.try_into().unwrap());
                json!({
                    "session_id": Uuid::now_v7(), "book_id": book, "started_at": at,
                    "observations": [{ "current_position": 1, "occurred_at": at }],
                })
            })
            .collect();
        let _ = reader.sync(json!({ "sessions": sessions })).await.ok();
    }
    let kept = tests::reader::id(&other.start(book).await.ok());
    app.settled().await;

    let erased = reader.erase().await;
    let total = SYNCS * SESSIONS_OF_A_SYNC;
    assert_eq!(erased.body["sessions"], json!(total));
    let (tombstones, transactions): (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct xmin::text) from events
        where event_type = 'SessionErased' and sequence > 1
            and payload ->> 'reader_id' = $1
            and sequence = (select max(sequence) from events as all_of where all_of.aggregate_id = events.aggregate_id)",
    )
    .bind(reader.id.to_string())
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!(tombstones, i64::try_from(total).unwrap());
    assert!(transactions > 1, "{transactions}");

    app.settled().await;
    assert_eq!(reader.history("").await.ok()["total"], 0);
    let erasure = overwritten(&app, &reader).await;
    assert_eq!(erasure.sessions, i64::try_from(total).unwrap());
    assert_eq!(other.session(kept).await.ok()["id"], json!(kept));
    // A repeat finds nothing.
    let id = ReaderId::from(reader.id);
    let again = erase::reader(&app.pool, id, clock::now()).await.unwrap();
    assert_eq!(again, erase::Erased::default());
    tests::invariants::check(&app).await;
}
