//! The relay's cursor is the last message of the stream. The relay resumes from
//! it, and checks it from time to time while it is idle.

use async_nats::jetstream;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use eventlog::deadline::with_deadline;
use eventlog::outgoing::OutgoingEvent;
use sqlx::PgConnection;

use super::{RelayError, STATEMENT_TIMEOUT, saved_cursor};
use crate::Subjects;
use crate::cloud_event::CloudEvent;
use crate::stream::StreamError;

/// The end of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// The stream sequence of the last message.
    pub stream_sequence: u64,
    /// The global position of the last event; 0 if the stream is empty.
    pub global_position: i64,
}

impl Cursor {
    /// The end of the stream after `event` is stored.
    pub fn after(self, event: &OutgoingEvent) -> Self {
        Self {
            stream_sequence: self.stream_sequence + 1,
            global_position: event.global_position,
        }
    }

    /// Checks that the stream still ends here. It does not if NATS lost its disk or
    /// another relay publishes. An idle relay would not notice either.
    pub async fn check(&self, stream: &Stream) -> Result<(), RelayError> {
        let actual = last_sequence(stream).await?;
        let expected = self.stream_sequence;
        if actual != expected {
            return Err(RelayError::StreamChanged { expected, actual });
        }
        Ok(())
    }
}

/// Reads the end of the stream, and checks that the log contains its last event.
pub async fn resume(
    jetstream: &jetstream::Context,
    stream: &Stream,
    subjects: &Subjects,
    connection: &mut PgConnection,
) -> Result<Cursor, RelayError> {
    let unavailable = |error: async_nats::Error| StreamError::Unavailable(error);
    let stream_sequence = last_sequence(stream).await?;
    let last = match stream
        .get_last_raw_message_by_subject(&subjects.all())
        .await
    {
        Ok(last) => last,
        // The stream is new.
        Err(error)
            if error.kind() == LastRawMessageErrorKind::NoMessageFound && stream_sequence == 0 =>
        {
            return Ok(Cursor {
                stream_sequence,
                global_position: 0,
            });
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
            let recovered =
                saved_cursor::recover(jetstream, subjects, stream, stream_sequence, connection);
            return recovered
                .await?
                .ok_or_else(|| RelayError::StreamLostItsEnd {
                    stream: subjects.stream().to_owned(),
                    cursor_stream: subjects.cursor_stream().to_owned(),
                    stream_sequence,
                });
        }
        Err(error) => return Err(unavailable(error.into()).into()),
    };
    let event: CloudEvent =
        serde_json::from_slice(&last.payload).map_err(|error| unavailable(error.into()))?;
    let in_log = sqlx::query_scalar!(
        r#"select exists (
            select from events
            where aggregate_id = $1 and sequence = $2 and global_position = $3
        ) as "known!""#,
        event.subject.as_ref(),
        event.sequence,
        event.globalposition,
    )
    .fetch_one(&mut *connection);
    if !with_deadline(STATEMENT_TIMEOUT, in_log).await? {
        return Err(RelayError::LogLostItsEnd {
            id: event.id.into_owned(),
            global_position: event.globalposition,
        });
    }
    // Messages of another relay, or of this one before a timeout, may arrive between the two
    // reads. Sequence and position must be those of one message. Otherwise NATS refuses the
    // first events of a window, and stores a later one in the place of the next event. The
    // sequence is higher than that of the last message if the last messages were deleted.
    Ok(Cursor {
        stream_sequence: stream_sequence.max(last.sequence),
        global_position: event.globalposition,
    })
}

async fn last_sequence(stream: &Stream) -> Result<u64, StreamError> {
    let info = stream.get_info().await;
    let info = info.map_err(|error| StreamError::Unavailable(error.into()))?;
    Ok(info.state.last_sequence)
}
