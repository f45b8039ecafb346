//! Checks from another process whether the log is published. Publishes nothing.

use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_EXPECTED_STREAM};
use async_nats::jetstream;
use bytes::Bytes;
use sqlx::{PgConnection, PgExecutor};

use super::{RelayError, cursor, leader};
use crate::{Subjects, stream};

/// How far the stream contains the log, and whether a relay publishes the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// The global position of the last event in the stream; 0 if there is none.
    pub global_position: i64,
    /// Whether a relay, in any process, holds the leader lock. A relay without errors
    /// holds it all the time.
    pub is_led: bool,
    /// How long the first event that is not in the stream has waited; `None` if the
    /// stream contains all events.
    pub waiting: Option<Duration>,
}

/// Compares the stream with the log.
///
/// # Errors
/// For the same reasons for which a relay cannot publish.
pub async fn published(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
    connection: &mut PgConnection,
) -> Result<Published, RelayError> {
    let global_position = match stream::find(jetstream, subjects).await? {
        Some(stream) => {
            let cursor = cursor::resume(jetstream, &stream, subjects, connection).await?;
            cursor.global_position
        }
        // A relay creates it.
        None => 0,
    };
    let is_led = leader(&mut *connection).await?.is_some();
    Ok(Published {
        global_position,
        is_led,
        waiting: oldest_unpublished(connection, global_position).await?,
    })
}

/// How long the first event after a global position has been in the log; `None` if there
/// is none.
///
/// # Errors
/// When Postgres refuses the query or is unavailable.
pub async fn oldest_unpublished(
    database: impl PgExecutor<'_>,
    published: i64,
) -> sqlx::Result<Option<Duration>> {
    let seconds = sqlx::query_scalar!(
        r#"select greatest(extract(epoch from clock_timestamp() - recorded_at), 0)::float8
            as "seconds!"
        from events
        where global_position > $1
        order by global_position
        limit 1"#,
        published
    )
    .fetch_optional(database)
    .await?;
    Ok(seconds.map(Duration::from_secs_f64))
}

/// Tries what a relay does besides calls of the API of JetStream: it subscribes to
/// wake-ups and publishes. NATS reports a refusal on the connection, not to the caller.
///
/// JetStream rejects the published message, because the message names another stream.
///
/// # Errors
/// If the connection is closed.
pub async fn try_permissions(
    client: &async_nats::Client,
    subjects: &Subjects,
) -> Result<(), async_nats::Error> {
    drop(client.subscribe(subjects.wake().to_owned()).await?);
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_STREAM, "none");
    let subject = subjects.all().replace('>', "doctor");
    client
        .publish_with_headers(subject, headers, Bytes::new())
        .await?;
    Ok(client.flush().await?)
}
