//! Events in versions that this build cannot read, as a newer build in the same
//! deployment would append them. Projections park such events.

use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

/// Appends any event to a session. Returns its global position.
pub async fn write(
    pool: &PgPool,
    session: Uuid,
    event_type: &str,
    version: &str,
    payload: &Value,
) -> i64 {
    sqlx::query_scalar(
        "insert into events
            (aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata)
        select $1, 1 + coalesce(max(sequence), 0), 'reading_session', $2, $3, $4::json, '{}'
        from events where aggregate_id = $1
        returning global_position",
    )
    .bind(session.to_string())
    .bind(event_type)
    .bind(version)
    .bind(payload.to_string())
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Appends a copy of the last event of a session in an unknown version. Returns its
/// global position.
pub async fn append_unreadable(pool: &PgPool, session: Uuid) -> i64 {
    append_copy(pool, session, "99").await
}

/// Appends a copy of the last event of a session in a known version. Returns its
/// global position.
pub async fn append_readable(pool: &PgPool, session: Uuid) -> i64 {
    append_copy(pool, session, "1").await
}

async fn append_copy(pool: &PgPool, session: Uuid, version: &str) -> i64 {
    sqlx::query_scalar(
        "insert into events
            (sequence, aggregate_id, aggregate_type, event_type, event_version, payload, metadata)
        select sequence + 1, aggregate_id, aggregate_type, event_type, $2, payload, metadata
        from events
        where aggregate_id = $1
        order by sequence desc
        limit 1
        returning global_position",
    )
    .bind(session.to_string())
    .bind(version)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Changes an event to a version that this build can read, as if a newer build were
/// running. Disables the triggers that forbid changes of events.
pub async fn make_readable(pool: &PgPool, global_position: i64) {
    let mut transaction = pool.begin().await.unwrap();
    for statement in [
        "set local session_replication_role = replica".to_owned(),
        format!("update events set event_version = '1' where global_position = {global_position}"),
    ] {
        sqlx::query(&statement)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
}
