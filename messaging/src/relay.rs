//! The relay: carries the log to JetStream, each event once and in order.
//!
//! One relay leads at a time, by a session advisory lock. That is only for
//! peace: what makes it exact is that its cursor is the stream's own last
//! message, and that every publish names the sequence it expects to follow. A
//! relay that was paused and wakes up behind another's back is refused by the
//! stream itself.

mod cursor;
mod outage_log;

use std::time::{Duration, Instant};

use async_nats::header::{HeaderMap, HeaderValue, NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::cursor::Cursor;
use self::outage_log::OutageLog;
use eventlog::outgoing::OutgoingEvent;
use crate::cloud_event::CloudEvent;
use eventlog::commit_feed::CommitSubscription;
use eventlog::deadline::with_deadline;
use crate::stream::{self, StreamError};
use eventlog::{LogError, read};

use crate::Subjects;

/// Events published before their acknowledgements are awaited.
const WINDOW: usize = 512;

/// The least time between reads that find something. What was committed within
/// it is read and published together, which is far cheaper; the first event after
/// a rest is published at once.
const PACE: Duration = Duration::from_millis(5);

/// How long the relay sleeps at most when nothing wakes it.
const POLL: Duration = Duration::from_millis(500);

/// How often a relay that has nothing to publish looks whether the stream still
/// ends where it left it.
const LOOK: Duration = Duration::from_secs(5);

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
    pub commits: CommitSubscription,
    /// Says how this relay stands.
    pub standing: watch::Sender<RelayStatus>,
}

/// How a relay stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// It publishes, and no other does.
    pub leads: bool,
    /// The global position up to which it knows the stream to hold the log.
    pub position: i64,
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
    /// The same, seen while there was nothing to publish.
    #[error("the stream ends with message {actual}, expected {expected}")]
    Moved { expected: u64, actual: u64 },
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

impl Relay {
    /// Relays until `shutdown`. Errors are logged and met by starting over
    /// from what the stream says.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let stopped = shutdown.clone().cancelled_owned();
        let mut outage = OutageLog::default();
        tokio::select! {
            () = stopped => {}
            () = async { loop {
                let led = self.lead(&mut outage).await;
                self.standing.send_modify(|standing| standing.leads = false);
                let pause = match led {
                    Ok(()) => ERROR_PAUSE,
                    Err(error) if error.needs_somebody() => {
                        tracing::error!(error = &error as &dyn std::error::Error, "the relay is stopped");
                        STOPPED_PAUSE
                    }
                    Err(error) => {
                        outage.tell(&error, &self.pool).await;
                        ERROR_PAUSE
                    }
                };
                tokio::time::sleep(pause).await;
            } } => {}
        }
    }

    async fn lead(&mut self, outage: &mut OutageLog) -> Result<(), RelayError> {
        // Out of the pool for good: the lock belongs to the session, so it must
        // end with this connection, however this future ends.
        let mut connection = self.pool.acquire().await?.detach();
        let asked = Instant::now();
        while !try_lock(&mut connection).await? {
            // It tells what there is to tell of.
            outage.led_elsewhere(asked);
            // It does not see this process's commits.
            let head = &mut self.commits.head;
            let tell = tell(self.jetstream.client(), &self.subjects, head);
            let _ = tokio::time::timeout(LEAD_RETRY, tell).await;
        }
        self.relay(&mut connection, outage).await
    }

    async fn relay(
        &mut self,
        connection: &mut PgConnection,
        outage: &mut OutageLog,
    ) -> Result<(), RelayError> {
        let mut wakeups = self
            .jetstream
            .client()
            .subscribe(self.subjects.wake().to_owned())
            .await
            .map_err(|error| RelayError::Publish(error.into()))?;
        let stream = stream::ensure(&self.jetstream, &self.subjects).await?;
        let mut cursor = cursor::resume(&stream, &self.subjects, connection).await?;
        if !outage.is_on() {
            tracing::info!(
                stream = self.subjects.stream(),
                after = cursor.global_position,
                "the relay leads"
            );
        }
        let mut looked = Instant::now();
        loop {
            outage.published(cursor.global_position);
            self.standing.send_replace(RelayStatus {
                leads: true,
                position: cursor.global_position,
            });
            // What came before this read needs no other.
            self.commits.head.mark_unchanged();
            while let Some(Some(_)) = wakeups.next().now_or_never() {}
            let events = self.next(connection, cursor.global_position).await?;
            if events.is_empty() {
                outage.over();
                if looked.elapsed() > LOOK {
                    cursor.holds(&stream).await?;
                    looked = Instant::now();
                }
                tokio::select! {
                    // The sender is gone when this process appends nothing.
                    Ok(()) = self.commits.head.changed() => {}
                    Some(_) = wakeups.next() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
                continue;
            }
            let read = Instant::now();
            let all = events.len() < WINDOW;
            cursor = self.publish(&events, cursor).await?;
            outage.over();
            if all {
                tokio::time::sleep_until((read + PACE).into()).await;
            }
        }
    }

    /// What follows a position in the log. What this process has just written need
    /// not be read.
    async fn next(
        &mut self,
        connection: &mut PgConnection,
        after: i64,
    ) -> Result<Vec<OutgoingEvent>, RelayError> {
        let heard = self.commits.after(after, WINDOW, Instant::now());
        if !heard.is_empty() {
            return Ok(heard);
        }
        let limit = i64::try_from(WINDOW).expect("a window is far below 2^63");
        let stored = with_deadline(DEADLINE, read::after(connection, after, limit)).await?;
        Ok(stored.into_iter().map(OutgoingEvent::from).collect())
    }

    /// Publishes a window, all at once, each event expecting to follow the one
    /// before it. So only the last is acknowledged: had one before it not been
    /// stored as expected, neither would the last. Anything unexpected, a duplicate
    /// too, means that the stream is not where we think: the dedupe of a stream is
    /// checked before the expected sequence, so a duplicate proves nothing about
    /// order.
    async fn publish(&self, events: &[OutgoingEvent], mut cursor: Cursor) -> Result<Cursor, RelayError> {
        let client = self.jetstream.client();
        let Some((last, before)) = events.split_last() else {
            return Ok(cursor);
        };
        for event in before {
            let (subject, payload) = self.message(event, cursor)?;
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, event.id());
            let expected = HeaderValue::from(cursor.stream_sequence);
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, expected);
            client
                .publish_with_headers(subject, headers, payload)
                .await
                .map_err(|error| RelayError::Publish(error.into()))?;
            cursor = cursor.after(event);
        }
        let (subject, payload) = self.message(last, cursor)?;
        let message = PublishMessage::build()
            .message_id(last.id())
            .expected_last_sequence(cursor.stream_sequence)
            .payload(payload);
        cursor = cursor.after(last);
        let sent = self.jetstream.send_publish(subject, message).await;
        let stored = match sent {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        let stored = stored.map_err(|error| RelayError::Publish(error.into()))?;
        if stored.duplicate || stored.sequence != cursor.stream_sequence {
            return Err(RelayError::OutOfStep {
                expected: cursor.stream_sequence,
                actual: stored.sequence,
                duplicate: stored.duplicate,
            });
        }
        Ok(cursor)
    }

    /// An event as it is published, and where.
    fn message(&self, event: &OutgoingEvent, after: Cursor) -> Result<(String, Bytes), RelayError> {
        let cloud_event = CloudEvent::of(event, after.global_position)?;
        let subject = self
            .subjects
            .event(&event.event_type, cloud_event.partitionkey);
        let payload = serde_json::to_vec(&cloud_event).expect("events are plain JSON");
        Ok((subject, payload.into()))
    }
}

async fn try_lock(connection: &mut PgConnection) -> Result<bool, RelayError> {
    let locked = sqlx::query_scalar!(
        r#"select pg_try_advisory_lock($1) as "locked!""#,
        LEADER_LOCK
    )
    .fetch_one(&mut *connection);
    Ok(with_deadline(DEADLINE, locked).await?)
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
            .publish(subjects.wake().to_owned(), Bytes::new())
            .await
        {
            tracing::debug!(%error, "a wake-up was not sent");
        }
    }
    // Nothing more is appended here.
    std::future::pending::<()>().await;
}
