//! A copy of the relay's cursor, in a stream of its own. The relay needs it only when
//! limits or a purge have removed every message of the stream of events.
//!
//! The copy may be old. Each message of the stream is one event, in the order of the log.
//! So the events after the copy are counted in the log.

use async_nats::jetstream;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use eventlog::deadline::with_deadline;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::cursor::Cursor;
use super::{RelayError, STATEMENT_TIMEOUT};
use crate::Subjects;
use crate::stream::{self, StreamError};

/// The last part of the cursor's subject.
const NAME: &str = "relay";

#[derive(Debug, Serialize, Deserialize)]
struct SavedCursor {
    /// When the stream of events was created. A stream that was created again has other
    /// sequences.
    stream_created: String,
    stream_sequence: u64,
    global_position: i64,
}

/// Saves the end of a stream.
pub async fn save(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
    stream: &Stream,
    cursor: Cursor,
) -> Result<(), StreamError> {
    let saved = SavedCursor {
        stream_created: created(stream),
        stream_sequence: cursor.stream_sequence,
        global_position: cursor.global_position,
    };
    let payload = serde_json::to_vec(&saved).expect("a cursor is plain JSON");
    let subject = subjects.cursor(NAME);
    let stored = match jetstream.publish(subject, payload.into()).await {
        Ok(acknowledgement) => acknowledgement.await,
        Err(error) => Err(error),
    };
    stored.map_err(|error| StreamError::Unavailable(error.into()))?;
    Ok(())
}

/// The end of an empty stream whose last message had this sequence. `None` if no cursor of
/// this stream is saved, or the log does not contain the events after it.
pub async fn recover(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
    stream: &Stream,
    stream_sequence: u64,
    connection: &mut PgConnection,
) -> Result<Option<Cursor>, RelayError> {
    let Some(saved) = load(jetstream, subjects).await? else {
        return Ok(None);
    };
    let missing = stream_sequence.checked_sub(saved.stream_sequence);
    let missing = missing.and_then(|missing| i64::try_from(missing).ok());
    let Some(missing) = missing.filter(|_| saved.stream_created == created(stream)) else {
        return Ok(None);
    };
    let last = sqlx::query_scalar!(
        r#"select global_position as "global_position!" from events
        where global_position >= $1
            and exists (select from events where global_position = $1)
        order by global_position
        offset $2
        limit 1"#,
        saved.global_position,
        missing
    )
    .fetch_optional(&mut *connection);
    let last = with_deadline(STATEMENT_TIMEOUT, last).await?;
    Ok(last.map(|global_position| Cursor {
        stream_sequence,
        global_position,
    }))
}

async fn load(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<Option<SavedCursor>, StreamError> {
    let unavailable = |error: async_nats::Error| StreamError::Unavailable(error);
    let Some(stream) = stream::find_cursor(jetstream, subjects).await? else {
        return Ok(None);
    };
    let subject = subjects.cursor(NAME);
    match stream.get_last_raw_message_by_subject(&subject).await {
        Ok(last) => {
            serde_json::from_slice(&last.payload).map_err(|error| unavailable(error.into()))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(unavailable(error.into())),
    }
}

fn created(stream: &Stream) -> String {
    stream.cached_info().created.to_string()
}
