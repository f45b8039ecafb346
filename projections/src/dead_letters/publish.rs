//! Copies of dead letters on NATS, for whoever wants to be told. The table is
//! the truth: a copy is published at least once, and twice with the same id.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use domain::Timestamp;
use eventlog::deadline::with_deadline;
use messaging::{Subjects, stream};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::LetterId;

/// How often letters are looked for that have no copy yet.
const EVERY: Duration = Duration::from_secs(2);

/// Letters published together.
const WINDOW: i64 = 100;

/// How long Postgres may take to tell of letters.
const DEADLINE: Duration = Duration::from_secs(10);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Publishes copies until `shutdown`.
pub async fn publish(
    pool: PgPool,
    jetstream: jetstream::Context,
    subjects: Subjects,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        let published = tokio::select! {
            () = shutdown.cancelled() => return,
            published = window(&pool, &jetstream, &subjects) => published,
        };
        match published {
            Ok(WINDOW) => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error,
                "dead letters were not published; they are kept and tried again"
            ),
        }
        let _ = tokio::time::timeout(EVERY, shutdown.cancelled()).await;
    }
}

/// A letter on the wire: a `CloudEvents` 1.0 object.
#[derive(Serialize)]
struct Copy<'a> {
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

/// Publishes some; returns how many.
async fn window(
    pool: &PgPool,
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<i64, Error> {
    let letters = sqlx::query!(
        r#"select d.projection, d.global_position, d.session_id, d.sequence, d.state, d.error,
            d.parked_at, e.event_type, e.event_version, e.payload::text as "payload!"
        from dead_letters as d
        join events as e on e.aggregate_id = d.session_id and e.sequence = d.sequence
        where not d.published
        order by d.global_position
        limit $1"#,
        WINDOW
    )
    .fetch_all(pool);
    let letters = with_deadline(DEADLINE, letters).await?;
    if letters.is_empty() {
        return Ok(0);
    }
    stream::ensure_dead_letters(jetstream, subjects).await?;
    for letter in &letters {
        let id = LetterId {
            projection: letter.projection.clone(),
            global_position: letter.global_position,
        };
        let id = id.to_string();
        let copy = Copy {
            specversion: "1.0",
            id: &id,
            source: "/reading-sessions",
            r#type: "reading.dead_letter.v1",
            subject: &letter.session_id,
            time: letter.parked_at,
            datacontenttype: "application/json",
            data: Data {
                projection: &letter.projection,
                state: &letter.state,
                error: &letter.error,
                globalposition: letter.global_position.to_string(),
                sequence: letter.sequence.to_string(),
                event_type: &letter.event_type,
                event_version: &letter.event_version,
                payload: serde_json::from_str(&letter.payload)?,
            },
        };
        let message = PublishMessage::build()
            .message_id(&id)
            .payload(serde_json::to_vec(&copy)?.into());
        jetstream
            .send_publish(subjects.dead_letter(&letter.projection), message)
            .await?
            .await?;
        let published = sqlx::query!(
            "update dead_letters set published = true
            where projection = $1 and global_position = $2",
            letter.projection,
            letter.global_position
        )
        .execute(pool);
        with_deadline(DEADLINE, published).await?;
    }
    Ok(i64::try_from(letters.len())?)
}
