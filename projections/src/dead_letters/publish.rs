//! Publishes dead letters to NATS, so that consumers can notify an operator.
//!
//! The table is the source of truth. Each dead letter is published at least once;
//! duplicates have the same message id.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use domain::Timestamp;
use eventlog::deadline::with_deadline;
use messaging::cloud_event::SOURCE;
use messaging::{Subjects, stream};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::DeadLetterId;

/// The interval between searches for unpublished dead letters.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The maximum number of dead letters that are read and published together.
const BATCH_SIZE: i64 = 100;

/// The deadline for one statement.
const QUERY_DEADLINE: Duration = Duration::from_secs(10);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Publishes dead letters until `shutdown`.
pub async fn publish(
    pool: PgPool,
    jetstream: jetstream::Context,
    subjects: Subjects,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        let published = tokio::select! {
            () = shutdown.cancelled() => return,
            published = publish_batch(&pool, &jetstream, &subjects) => published,
        };
        match published {
            Ok(BATCH_SIZE) => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error,
                "publishing dead letters failed: {error}; the next attempt follows in 2 s"
            ),
        }
        let _ = tokio::time::timeout(POLL_INTERVAL, shutdown.cancelled()).await;
    }
}

/// A published dead letter: a `CloudEvents` 1.0 object.
#[derive(Serialize)]
struct Message<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    projection: &'a str,
    state: &'a str,
    error: &'a str,
    globalposition: String,
    sequence: String,
    event_type: &'a str,
    event_version: &'a str,
    payload: &'a RawValue,
}

/// Publishes the next dead letters. Returns their number.
async fn publish_batch(
    pool: &PgPool,
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<i64, Error> {
    let dead_letters = sqlx::query!(
        r#"select d.projection, d.global_position, d.session_id, d.sequence, d.state, d.error,
            d.parked_at, e.event_type, e.event_version, e.payload::text as "payload!"
        from dead_letters as d
        join events as e on e.aggregate_id = d.session_id and e.sequence = d.sequence
        where not d.published
        order by d.global_position
        limit $1"#,
        BATCH_SIZE
    )
    .fetch_all(pool);
    let dead_letters = with_deadline(QUERY_DEADLINE, dead_letters).await?;
    if dead_letters.is_empty() {
        return Ok(0);
    }
    stream::ensure_dead_letters(jetstream, subjects).await?;
    for dead_letter in &dead_letters {
        let id = DeadLetterId {
            projection: dead_letter.projection.clone(),
            global_position: dead_letter.global_position,
        };
        let id = id.to_string();
        let event = Message {
            specversion: "1.0",
            id: &id,
            source: SOURCE,
            r#type: "reading.dead_letter.v1",
            subject: &dead_letter.session_id,
            time: dead_letter.parked_at,
            datacontenttype: "application/json",
            data: Data {
                projection: &dead_letter.projection,
                state: &dead_letter.state,
                error: &dead_letter.error,
                globalposition: dead_letter.global_position.to_string(),
                sequence: dead_letter.sequence.to_string(),
                event_type: &dead_letter.event_type,
                event_version: &dead_letter.event_version,
                payload: serde_json::from_str(&dead_letter.payload)?,
            },
        };
        let message = PublishMessage::build()
            .message_id(&id)
            .payload(serde_json::to_vec(&event)?.into());
        jetstream
            .send_publish(subjects.dead_letter(&dead_letter.projection), message)
            .await?
            .await?;
        let published = sqlx::query!(
            "update dead_letters set published = true
            where projection = $1 and global_position = $2",
            dead_letter.projection,
            dead_letter.global_position
        )
        .execute(pool);
        with_deadline(QUERY_DEADLINE, published).await?;
    }
    Ok(i64::try_from(dead_letters.len())?)
}
