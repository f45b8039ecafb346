//! Old sessions and old events. Tests write them, or change their timestamps in
//! Postgres, instead of waiting.

use chrono::{DateTime, TimeDelta, Utc};
use domain::SessionId;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::future_events;

/// Moves the `recorded_at` of a session's events into the past. Disables the
/// triggers that forbid changes of events.
pub async fn shift_session(pool: &PgPool, session: Uuid, by: TimeDelta) {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("set local session_replication_role = replica")
        .execute(&mut *transaction)
        .await
        .unwrap();
    sqlx::query(
        "update events set recorded_at = recorded_at - $2::float8 * interval '1 s'
        where aggregate_id = $1",
    )
    .bind(session.to_string())
    .bind(by.as_seconds_f64())
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
}

/// Appends a session that started at a given time and ended a minute later. The
/// month of its id must have a partition.
pub async fn write_session(pool: &PgPool, reader: Uuid, id: SessionId, at: DateTime<Utc>) {
    let book = Uuid::from_u128(7);
    let end = at + TimeDelta::minutes(1);
    let started = json!({
        "type": "SessionStarted", "reader_id": reader, "book_id": book, "started_at": at,
        "position": 0,
    });
    let ended = json!({
        "type": "SessionEnded", "reader_id": reader, "book_id": book, "reason": "finished",
        "started_at": at, "ended_at": end, "elapsed_ms": 60_000, "start_position": 0,
        "position": 5, "intervals": [{ "from": at, "ms": 60_000 }], "active_ms": 60_000,
        "furthest_position": 5,
    });
    future_events::write(pool, id.uuid(), "SessionStarted", "1", &started).await;
    future_events::write(pool, id.uuid(), "SessionEnded", "3", &ended).await;
}

/// Creates the partitions of a past month. The service creates only the partitions
/// of coming months.
pub async fn create_month_partitions(pool: &PgPool, at: DateTime<Utc>) {
    for table in ["public.events", "read.history"] {
        let create = format!(
            "set role reading_owner;
            do $$ declare month date := date_trunc('month', timestamp '{}'); begin
                execute format(
                    'create table if not exists {table}_%s partition of {table}
                        for values from (%L) to (%L)',
                    to_char(month, 'YYYY_MM'), month_bound(month),
                    month_bound((month + interval '1 month')::date)
                );
            end $$;
            reset role",
            at.format("%Y-%m-%d")
        );
        sqlx::raw_sql(&create).execute(pool).await.unwrap();
    }
}
