//! Events in versions that this build cannot read, as a newer build in the same
//! deployment would append them. Projections park such events.

use domain::SessionEvent;
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
    append_copy(pool, session, Some("99")).await
}

/// Appends a copy of the last event of a session in its current version. Returns its
/// global position.
pub async fn append_readable(pool: &PgPool, session: Uuid) -> i64 {
    append_copy(pool, session, None).await
}

async fn append_copy(pool: &PgPool, session: Uuid, version: Option<&str>) -> i64 {
    sqlx::query_scalar(
        "insert into events
            (sequence, aggregate_id, aggregate_type, event_type, event_version, payload, metadata)
        select sequence + 1, aggregate_id, aggregate_type, event_type,
            coalesce($2::text, ($4::text[])[array_position($3::text[], event_type)]), payload, metadata
        from events
        where aggregate_id = $1
        order by sequence desc
        limit 1
        returning global_position",
    )
    .bind(session.to_string())
    .bind(version)
    .bind(&SessionEvent::NAMES[..])
    .bind(&SessionEvent::VERSIONS[..])
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Changes an event to its current version, as if a newer build were running. Disables
/// the triggers that forbid changes of events.
pub async fn make_readable(pool: &PgPool, global_position: i64) {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("set local session_replication_role = replica")
        .execute(&mut *transaction)
        .await
        .unwrap();
    sqlx::query(
        "update events set event_version = ($3::text[])[array_position($2::text[], event_type)]
        where global_position = $1",
    )
    .bind(global_position)
    .bind(&SessionEvent::NAMES[..])
    .bind(&SessionEvent::VERSIONS[..])
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
}
