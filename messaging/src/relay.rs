//! The relay publishes the log to JetStream, each event once and in order.
//!
//! One relay leads at a time: it holds an advisory lock of its Postgres session.
//! The lock only avoids contention. Exactness comes from two other rules:
//!
//! - The relay reads its cursor from the last message of the stream: the sequence and the
//!   event of the same message. If all messages have left the stream, it counts from a saved
//!   copy of its cursor.
//! - Every publish contains the stream sequence that it expects to follow.
//!
//! So the stream itself rejects a relay that was paused and resumes while another
//! relay leads. The relay never changes the log.

mod announce;
mod check;
mod cursor;
mod error;
mod outage_log;
mod saved_cursor;
mod spans;
mod stream_watch;

use std::time::{Duration, Instant};

use async_nats::Subscriber;
use async_nats::header::{HeaderMap, HeaderValue, NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use eventlog::commit_feed::CommitSubscription;
use eventlog::deadline::with_deadline;
use eventlog::error::error_chain;
use eventlog::health::HealthFlag;
use eventlog::outgoing::OutgoingEvent;
use eventlog::read;
use eventlog::trace::Traces;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use sqlx::{PgConnection, PgExecutor, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::announce::announce_commits;
use self::announce::announce_forever;
pub use self::check::{Published, oldest_unpublished, published, try_permissions};
use self::cursor::Cursor;
pub use self::error::RelayError;
use self::outage_log::OutageLog;
pub use self::stream_watch::StreamSize;
use self::stream_watch::StreamWatch;
use crate::Subjects;
use crate::cloud_event::CloudEvent;
use crate::stream::{self, StreamLimits};

/// Events that are published before the relay waits for an acknowledgement.
/// Bounds what is read and sent at once.
const PUBLISH_WINDOW: usize = 512;

/// The least time between two reads that find events. Events that are committed
/// within it are read and published together, which costs far less. The first
/// event after a quiet period is published at once.
const MIN_READ_INTERVAL: Duration = Duration::from_millis(5);

/// How often an idle relay reads the log, in case a wake-up was lost.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How often an idle relay checks that the end of the stream has not changed.
const STREAM_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How often a relay that does not lead tries to take the lock.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The pause after an error. Most errors are outages of Postgres or NATS.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The pause after an error that an operator must fix.
const OPERATOR_RETRY_DELAY: Duration = Duration::from_secs(2);

/// The client's timeout of a statement: longer than the `statement_timeout` of
/// the relay's connections (10 s), so that Postgres normally reports the error.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(12);

/// The key of the advisory lock that the leader holds.
const LEADER_LOCK: i64 = 7_340_002;

/// Publishes the log to the stream.
pub struct Relay {
    /// Connections to the log. While it leads, the relay holds one of them.
    pub pool: PgPool,
    pub jetstream: jetstream::Context,
    pub subjects: Subjects,
    /// Notifies the relay of commits in this process.
    pub commits: CommitSubscription,
    /// Receives the status of this relay.
    pub status: watch::Sender<RelayStatus>,
    /// Reports that the relay cannot publish until an operator acts.
    pub stopped: HealthFlag,
    /// The limits of the stream.
    pub limits: StreamLimits,
    /// Receives the size of the stream; `None` while this relay does not lead.
    pub size: watch::Sender<Option<StreamSize>>,
    pub traces: Traces,
}

/// Whether a relay publishes, and how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStatus {
    /// Whether this relay publishes. At most one relay does.
    pub is_leader: bool,
    /// The global position up to which the stream contains the log, when this relay last
    /// read or wrote it. `None` before, and while another relay leads.
    pub published: Option<i64>,
}

impl Relay {
    /// Publishes until `shutdown`. After an error it continues from the end of
    /// the stream.
    ///
    /// The future is boxed so that this crate alone compiles it (decision 0020).
    #[must_use]
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.run_forever() => {}
            }
        })
    }

    async fn run_forever(mut self) {
        let mut outage = OutageLog::default();
        loop {
            let result = self.lead(&mut outage).await;
            self.status.send_modify(|status| status.is_leader = false);
            self.size.send_replace(None);
            let delay = match result {
                Ok(()) => RETRY_DELAY,
                Err(error) if error.needs_operator() => {
                    let error = error_chain(&error);
                    self.stopped.fail(error.as_str());
                    tracing::error!(
                        "relay cannot publish: {error}; an operator must act, next try in {} s",
                        OPERATOR_RETRY_DELAY.as_secs()
                    );
                    OPERATOR_RETRY_DELAY
                }
                Err(error) => {
                    outage.failed(&error, &self.pool).await;
                    RETRY_DELAY
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    /// Waits for the lock, then publishes until an error.
    async fn lead(&mut self, outage: &mut OutageLog) -> Result<(), RelayError> {
        // The lock belongs to the Postgres session. A connection that is detached
        // from its pool is closed, and so releases the lock, however this future ends.
        let mut connection = self.pool.acquire().await?.detach();
        let waiting_since = Instant::now();
        while !try_lock(&mut connection).await? {
            if outage.another_leads(waiting_since) {
                self.stopped.clear();
                self.status.send_modify(|status| status.published = None);
            }
            // The leader may run in another process and is not notified of the
            // commits of this one.
            let head = &mut self.commits.last_committed;
            let announce = announce_forever(self.jetstream.client(), &self.subjects, head);
            let _ = tokio::time::timeout(LOCK_RETRY_INTERVAL, announce).await;
        }
        self.publish_log(&mut connection, outage).await
    }

    async fn publish_log(
        &mut self,
        connection: &mut PgConnection,
        outage: &mut OutageLog,
    ) -> Result<(), RelayError> {
        let mut wake_ups = self
            .jetstream
            .client()
            .subscribe(self.subjects.wake().to_owned())
            .await
            .map_err(|error| RelayError::Publish(error.into()))?;
        let stream = stream::ensure(&self.jetstream, &self.subjects, &self.limits).await?;
        let cursor = cursor::resume(&self.jetstream, &stream, &self.subjects, connection).await?;
        if !outage.is_ongoing() {
            tracing::info!(
                stream = self.subjects.stream(),
                after = cursor.global_position,
                "relay leads: it publishes the log"
            );
        }
        let (published, end_of_stream) = watch::channel(cursor);
        let watch = StreamWatch {
            jetstream: self.jetstream.clone(),
            subjects: self.subjects.clone(),
            stream: stream.clone(),
            replicas: self.limits.replicas,
            cursor: end_of_stream,
            size: self.size.clone(),
        };
        tokio::select! {
            result = self.publish_after(&published, &stream, &mut wake_ups, connection, outage) => {
                result
            }
            never = watch.run() => match never {},
        }
    }

    /// Publishes the events after the cursor, until an error.
    async fn publish_after(
        &mut self,
        published: &watch::Sender<Cursor>,
        stream: &Stream,
        wake_ups: &mut Subscriber,
        connection: &mut PgConnection,
        outage: &mut OutageLog,
    ) -> Result<(), RelayError> {
        let mut cursor = *published.borrow();
        let mut stream_checked = Instant::now();
        loop {
            outage.published(cursor.global_position);
            self.status.send_replace(RelayStatus {
                is_leader: true,
                published: Some(cursor.global_position),
            });
            // The read below includes everything that earlier wake-ups announced.
            self.commits.last_committed.mark_unchanged();
            while let Some(Some(_)) = wake_ups.next().now_or_never() {}
            let events = self.next_events(connection, cursor.global_position).await?;
            if events.is_empty() {
                outage.end();
                self.stopped.clear();
                if stream_checked.elapsed() > STREAM_CHECK_INTERVAL {
                    cursor.check(stream).await?;
                    stream_checked = Instant::now();
                }
                tokio::select! {
                    // The sender is dropped if this process appends nothing.
                    Ok(()) = self.commits.last_committed.changed() => {}
                    Some(_) = wake_ups.next() => {}
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                }
                continue;
            }
            let read_at = Instant::now();
            let caught_up = events.len() < PUBLISH_WINDOW;
            let spans = spans::start(&self.traces, &events, &self.subjects);
            let sent = self.publish(&events, cursor).await;
            spans::end(spans, sent.as_ref().err());
            cursor = sent?;
            published.send_replace(cursor);
            outage.end();
            self.stopped.clear();
            if caught_up {
                tokio::time::sleep_until((read_at + MIN_READ_INTERVAL).into()).await;
            }
        }
    }

    /// The next events after a global position. Events that this process has just
    /// committed come from memory.
    async fn next_events(
        &mut self,
        connection: &mut PgConnection,
        after: i64,
    ) -> Result<Vec<OutgoingEvent>, RelayError> {
        let committed = self
            .commits
            .take_contiguous_after(after, PUBLISH_WINDOW, Instant::now());
        if !committed.is_empty() {
            return Ok(committed);
        }
        let limit = i64::try_from(PUBLISH_WINDOW).expect("a window is far below 2^63");
        let stored =
            with_deadline(STATEMENT_TIMEOUT, read::after(connection, after, limit)).await?;
        Ok(stored.into_iter().map(OutgoingEvent::from).collect())
    }

    /// Publishes events without waiting in between, each with the stream sequence
    /// of the event before it. Only the last one is acknowledged: it is stored as
    /// expected only if all events before it were.
    ///
    /// Every other result is an error, also a duplicate. JetStream checks for
    /// duplicates before it checks the expected sequence, so a duplicate proves
    /// nothing about the order.
    async fn publish(
        &self,
        events: &[OutgoingEvent],
        mut cursor: Cursor,
    ) -> Result<Cursor, RelayError> {
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
            return Err(RelayError::UnexpectedSequence {
                expected: cursor.stream_sequence,
                actual: stored.sequence,
                duplicate: stored.duplicate,
            });
        }
        Ok(cursor)
    }

    /// The subject and the payload of an event.
    fn message(&self, event: &OutgoingEvent, after: Cursor) -> Result<(String, Bytes), RelayError> {
        let cloud_event = CloudEvent::new(event, after.global_position)?;
        let subject = self
            .subjects
            .event(&event.event_type, cloud_event.partitionkey);
        let payload = serde_json::to_vec(&cloud_event).expect("events are plain JSON");
        Ok((subject, payload.into()))
    }
}

/// The connection of the relay that publishes.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The address of the client, or `local` for a socket; `None` for a caller that may not
    /// see the connections of other roles.
    pub address: Option<String>,
}

/// The relay that publishes now; `None` if there is none.
pub async fn leader(database: impl PgExecutor<'_>) -> sqlx::Result<Option<Leader>> {
    sqlx::query_as!(
        Leader,
        // Postgres hides the port from such a caller. For a socket it is -1.
        "select case when client_port is not null then coalesce(host(client_addr), 'local') end
            as address
        from pg_locks left join pg_stat_activity using (pid)
        where locktype = 'advisory' and granted and objsubid = 1
            and classid::bigint = $1::bigint >> 32
            and objid::bigint = $1::bigint & 4294967295
            and database = (select oid from pg_database where datname = current_database())
        limit 1",
        LEADER_LOCK
    )
    .fetch_optional(database)
    .await
}

async fn try_lock(connection: &mut PgConnection) -> Result<bool, RelayError> {
    let locked = sqlx::query_scalar!(
        r#"select pg_try_advisory_lock($1) as "locked!""#,
        LEADER_LOCK
    )
    .fetch_one(&mut *connection);
    Ok(with_deadline(STATEMENT_TIMEOUT, locked).await?)
}
