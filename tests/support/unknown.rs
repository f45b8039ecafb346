//! Events that this build cannot read, as a newer one beside it would write
//! them: a projection parks them.

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

/// Appends the last event of a session once more, in a version that is not
/// known. Returns its global position.
pub async fn append(pool: &PgPool, session: Uuid) -> i64 {
    again(pool, session, "99").await
}

/// Appends the last event of a session once more, in a version that is known.
pub async fn follow(pool: &PgPool, session: Uuid) -> i64 {
    again(pool, session, "1").await
}

async fn again(pool: &PgPool, session: Uuid, version: &str) -> i64 {
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

/// Makes the event one that this build can read, as a newer build would do.
/// Events do not change, so their triggers are passed by.
pub async fn learn(pool: &PgPool, position: i64) {
    let mut transaction = pool.begin().await.unwrap();
    for statement in [
        "set local session_replication_role = replica".to_owned(),
        format!("update events set event_version = '1' where global_position = {position}"),
    ] {
        sqlx::query(&statement)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
}
