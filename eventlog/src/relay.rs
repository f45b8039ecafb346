//! The relay: carries the log to JetStream, each event once and in order.
//!
//! One relay leads at a time, by a session advisory lock. That is only for
//! peace: what makes it exact is that its cursor is the stream's own last
//! message, and that every publish names the sequence it expects to follow. A
//! relay that was paused and wakes up behind another's back is refused by the
//! stream itself.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures::{FutureExt, StreamExt};
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cloud_event::CloudEvent;
use crate::deadline::within;
use crate::stream::{self, StreamError};
use crate::{LogError, Stored, Subjects, read};

/// Events published before their acknowledgements are awaited.
const WINDOW: i64 = 512;

/// How long the relay sleeps at most when nothing wakes it.
const POLL: Duration = Duration::from_millis(500);

/// How often a relay that does not lead asks whether it may.
const LEAD_RETRY: Duration = Duration::from_secs(1);

/// The pause after an error; errors here are other servers' outages.
const ERROR_PAUSE: Duration = Duration::from_millis(500);

/// The pause after an error that somebody must do something about.
const STOPPED_PAUSE: Duration = Duration::from_secs(2);

/// How long Postgres may take to answer; somewhat longer than a statement may
/// take there.
const DEADLINE: Duration = Duration::from_secs(12);

/// The advisory lock of the relay that leads.
const LEADER_LOCK: i64 = 7_340_002;

/// What the relay works with.
pub struct Relay {
    /// Where the log is; the relay keeps one connection while it leads.
    pub pool: PgPool,
    /// Where the stream is.
    pub jetstream: jetstream::Context,
    /// The names of the stream and its subjects.
    pub subjects: Subjects,
    /// Tells of commits of this process.
    pub head: watch::Receiver<i64>,
}

/// Why the relay starts over.
#[derive(Debug, Error)]
enum RelayError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// NATS did not take or acknowledge what was published.
    #[error("the stream did not take an event")]
    Publish(#[source] async_nats::Error),
    /// The stream has moved on behind our back; another relay leads, or did.
    #[error("an event was stored as {actual}, expected {expected}, duplicate: {duplicate}")]
    OutOfStep {
        expected: u64,
        actual: u64,
        duplicate: bool,
    },
    /// The stream holds an event that the log does not: the log was restored
    /// from an older copy. Going on would publish other events under the same
    /// positions.
    #[error(
        "the stream ends with event {id} at {global_position}, which the log does not hold; \
             the log has lost its end. Restore it, or delete the stream to have it made again"
    )]
    LogLostItsEnd { id: String, global_position: i64 },
    /// The stream held events and holds none: it does not say any more how far
    /// the log was carried. Beginning at the start of the log would publish all
    /// of it again to consumers that have seen it.
    #[error(
        "the stream {stream} is empty after {stream_sequence} messages: it was purged, or its \
             limits took all of it. Delete the stream to have the whole log published again"
    )]
    StreamLostItsEnd {
        stream: String,
        stream_sequence: u64,
    },
}

impl RelayError {
    /// Whether trying again does not help.
    fn needs_somebody(&self) -> bool {
        matches!(
            self,
            Self::LogLostItsEnd { .. }
                | Self::StreamLostItsEnd { .. }
                | Self::Stream(StreamError::Different { .. })
                | Self::Log(LogError::Undecodable { .. } | LogError::Broken(_))
        )
    }
}

impl From<sqlx::Error> for RelayError {
    fn from(error: sqlx::Error) -> Self {
        Self::Log(error.into())
    }
}

/// Where the stream ends.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The stream's sequence of its last message.
    stream_sequence: u64,
    /// The global position of its last event; 0 when it is empty.
    global_position: i64,
}

impl Relay {
    /// Relays until `shutdown`. Errors are logged and met by starting over
    /// from what the stream says.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let stopped = shutdown.clone().cancelled_owned();
        tokio::select! {
            () = stopped => {}
            () = async { loop {
                let pause = match self.lead().await {
                    Ok(()) => ERROR_PAUSE,
                    Err(error) if error.needs_somebody() => {
                        tracing::error!(error = &error as &dyn std::error::Error, "the relay is stopped");
                        STOPPED_PAUSE
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "the relay starts over");
                        ERROR_PAUSE
                    }
                };
                tokio::time::sleep(pause).await;
            } } => {}
        }
    }

    async fn lead(&mut self) -> Result<(), RelayError> {
        // Out of the pool for good: the lock belongs to the session, so it must
        // end with this connection, however this future ends.
        let mut connection = self.pool.acquire().await?.detach();
        while !try_lock(&mut connection).await? {
            // Who leads does not see this process's commits.
            let tell = tell(self.jetstream.client(), &self.subjects, &mut self.head);
            let _ = tokio::time::timeout(LEAD_RETRY, tell).await;
        }
        tracing::info!(stream = self.subjects.stream(), "the relay leads");
        self.relay(&mut connection).await
    }

    async fn relay(&mut self, connection: &mut PgConnection) -> Result<(), RelayError> {
        let mut wakeups = self
            .jetstream
            .client()
            .subscribe(self.subjects.wake().to_owned())
            .await
            .map_err(|error| RelayError::Publish(error.into()))?;
        let stream = stream::ensure(&self.jetstream, &self.subjects).await?;
        let mut cursor = resume(&stream, &self.subjects, connection).await?;
        loop {
            // What came before this read needs no other.
            self.head.mark_unchanged();
            while let Some(Some(_)) = wakeups.next().now_or_never() {}
            let events = within(
                DEADLINE,
                read::after(&mut *connection, cursor.global_position, WINDOW),
            )
            .await?;
            if events.is_empty() {
                tokio::select! {
                    // The sender is gone when this process appends nothing.
                    Ok(()) = self.head.changed() => {}
                    Some(_) = wakeups.next() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
                continue;
            }
            cursor = self.publish(&events, cursor).await?;
        }
    }

    /// Publishes a window, all at once, each event expecting to follow the one
    /// before it. Anything unexpected, a duplicate too, means that the stream
    /// is not where we think: the dedupe of a stream is checked before the
    /// expected sequence, so a duplicate proves nothing about order.
    async fn publish(&self, events: &[Stored], mut cursor: Cursor) -> Result<Cursor, RelayError> {
        let mut acknowledgements = Vec::with_capacity(events.len());
        for event in events {
            let cloud_event = CloudEvent::of(event, cursor.global_position)?;
            let payload = serde_json::to_vec(&cloud_event).expect("events are plain JSON");
            let message = PublishMessage::build()
                .message_id(event.id())
                .expected_last_sequence(cursor.stream_sequence)
                .payload(payload.into());
            let subject = self
                .subjects
                .event(&event.event_type, cloud_event.partitionkey);
            let acknowledgement = self
                .jetstream
                .send_publish(subject, message)
                .await
                .map_err(|error| RelayError::Publish(error.into()))?;
            cursor.stream_sequence += 1;
            cursor.global_position = event.global_position;
            acknowledgements.push((cursor.stream_sequence, acknowledgement));
        }
        for (expected, acknowledgement) in acknowledgements {
            let stored = acknowledgement
                .await
                .map_err(|error| RelayError::Publish(error.into()))?;
            if stored.duplicate || stored.sequence != expected {
                return Err(RelayError::OutOfStep {
                    expected,
                    actual: stored.sequence,
                    duplicate: stored.duplicate,
                });
            }
        }
        Ok(cursor)
    }
}

async fn try_lock(connection: &mut PgConnection) -> Result<bool, RelayError> {
    let locked = sqlx::query_scalar!(
        r#"select pg_try_advisory_lock($1) as "locked!""#,
        LEADER_LOCK
    )
    .fetch_one(&mut *connection);
    Ok(within(DEADLINE, locked).await?)
}

/// Where the stream ends, and that the log knows that event.
async fn resume(
    stream: &Stream,
    subjects: &Subjects,
    connection: &mut PgConnection,
) -> Result<Cursor, RelayError> {
    let unavailable = |error: async_nats::Error| StreamError::Unavailable(error);
    let stream_sequence = stream
        .get_info()
        .await
        .map_err(|error| unavailable(error.into()))?
        .state
        .last_sequence;
    let last = match stream
        .get_last_raw_message_by_subject(&subjects.all())
        .await
    {
        Ok(last) => last,
        // A stream that is new.
        Err(error)
            if error.kind() == LastRawMessageErrorKind::NoMessageFound && stream_sequence == 0 =>
        {
            return Ok(Cursor {
                stream_sequence,
                global_position: 0,
            });
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
            return Err(RelayError::StreamLostItsEnd {
                stream: subjects.stream().to_owned(),
                stream_sequence,
            });
        }
        Err(error) => return Err(unavailable(error.into()).into()),
    };
    let event: CloudEvent =
        serde_json::from_slice(&last.payload).map_err(|error| unavailable(error.into()))?;
    let known = sqlx::query_scalar!(
        r#"select exists (
            select from events
            where aggregate_id = $1 and sequence = $2 and global_position = $3
        ) as "known!""#,
        event.subject.as_ref(),
        event.sequence,
        event.globalposition,
    )
    .fetch_one(&mut *connection);
    if !within(DEADLINE, known).await? {
        return Err(RelayError::LogLostItsEnd {
            id: event.id.into_owned(),
            global_position: event.globalposition,
        });
    }
    Ok(Cursor {
        stream_sequence,
        global_position: event.globalposition,
    })
}

/// Tells relays in other processes of this one's commits, until `shutdown`; for
/// a process that has no relay. A lost wake-up costs a poll's time, no more.
pub async fn announce(
    client: async_nats::Client,
    subjects: Subjects,
    mut head: watch::Receiver<i64>,
    shutdown: CancellationToken,
) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tell(client, &subjects, &mut head) => {}
    }
}

/// Tells of commits for as long as it is let.
async fn tell(client: async_nats::Client, subjects: &Subjects, head: &mut watch::Receiver<i64>) {
    while head.changed().await.is_ok() {
        if let Err(error) = client
            .publish(subjects.wake().to_owned(), bytes::Bytes::new())
            .await
        {
            tracing::debug!(%error, "a wake-up was not sent");
        }
    }
    // Nothing more is appended here.
    std::future::pending::<()>().await;
}
