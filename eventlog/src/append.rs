//! Group commit: one task per process appends the commands of all requests in
//! batches.
//!
//! While one transaction is in flight, new commands join the next batch. There is
//! no timer: an idle service commits a single command at once, a busy one commits
//! hundreds together. A refused command never fails the others of its batch.
//!
//! This module decides nothing. It never retries: after a conflict the caller
//! decides again.

use std::time::{Duration, Instant};

use domain::{ReaderId, SessionEvent, SessionId, Timestamp};
use futures::FutureExt;
use sqlx::{PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};

use crate::AppendError;
use crate::commit_feed::CommitFeed;
use crate::stored_bytes::StorageMeter;

mod rows;
mod write;

use rows::Rows;
use write::Failure;

/// Maximum number of commands that wait for the next batch. Beyond it, appends fail at once with
/// [`AppendError::Overloaded`]. At full load the queue holds a few seconds of
/// commands, so a short stall of Postgres fails no request.
const MAX_QUEUED: usize = 8_192;

/// Maximum number of commands in one transaction. A larger batch saves nothing per
/// command and delays all of them.
const MAX_BATCH_SIZE: usize = 512;

/// Maximum number of events in one transaction. A command can have some hundreds, if a
/// session was read offline. A batch with the maximum takes a fraction of a second, far
/// less than [`write::APPEND_TIMEOUT`]. A single command with more events is a batch of
/// its own.
const MAX_BATCH_EVENTS: usize = 8_192;

/// The effect of one command. It is written completely or not at all.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// The new events, in order.
    pub events: Vec<NewEvent>,
    /// Sessions that get no event although the response contains their state, each with
    /// the sequence of its last event. If a session has another last event, because it was
    /// erased for example, the append conflicts.
    pub seen: Vec<(SessionId, i64)>,
    pub claim: Option<ActiveClaimChange>,
    /// The response to store for repeats of the command.
    pub response: Option<KeyedResponse>,
    /// Records what the append stores. `None` for the service's own commands.
    pub meter: Option<StorageMeter>,
}

#[derive(Clone, Debug)]
pub struct NewEvent {
    pub session_id: SessionId,
    /// The number of the event in its session, from 1. It must follow the session's last
    /// event, otherwise the append conflicts.
    pub sequence: i64,
    pub event: SessionEvent,
    /// A JSON object, see [`crate::recorded::StoredEvent::metadata`].
    pub metadata: String,
}

/// Checks and changes which session of a reader is active. A reader has at most one
/// change in a batch; a further one conflicts.
#[derive(Clone, Copy, Debug)]
pub struct ActiveClaimChange {
    pub reader_id: ReaderId,
    /// The active session that the decision assumes. If the reader has another one,
    /// the append conflicts.
    pub expected: Option<SessionId>,
    /// The active session after the command. If it is the expected one, the append only
    /// checks the claim.
    pub next: Option<SessionId>,
    /// The newest observation outside the active session that the decision assumes, as
    /// [`crate::active_claims::reader_activity`] returns it. If no session is expected to
    /// be active and the log contains another one, the append conflicts.
    pub expected_newest: Option<Timestamp>,
    /// An observation outside the active session. The log keeps the newest one. `None`
    /// changes nothing.
    pub next_newest: Option<Timestamp>,
}

/// The response of a command, to be stored under its idempotency key.
#[derive(Clone, Debug)]
pub struct KeyedResponse {
    pub reader_id: ReaderId,
    /// Each reader has its own keys. If this one is in use, the append conflicts.
    pub key: String,
    /// Distinguishes a repeat of the command from another command.
    pub fingerprint: Vec<u8>,
    /// A [`crate::idempotency::Outcome`] as JSON.
    pub response: String,
}

/// A batch that was sent to Postgres, whether it was committed or not.
#[derive(Clone, Copy, Debug)]
pub struct AppendedBatch {
    /// The number of its events.
    pub events: usize,
    /// From sending the batch until its result.
    pub duration: Duration,
}

/// A handle to the appending task; cheap to clone. The task ends when the last
/// handle is dropped and the queue is empty.
#[derive(Clone, Debug)]
pub struct Appender {
    queue: mpsc::Sender<QueuedAppend>,
}

/// The global positions of a command's events.
type AppendResult = Result<Vec<i64>, AppendError>;

#[derive(Debug)]
struct QueuedAppend {
    rows: Rows,
    meter: Option<StorageMeter>,
    reply: oneshot::Sender<AppendResult>,
}

impl Appender {
    /// Returns the handle and the task, which the caller spawns. The task takes a
    /// connection out of `pool` and keeps it. It calls `on_batch` after each batch.
    pub fn new(
        pool: PgPool,
        commits: CommitFeed,
        on_batch: impl Fn(AppendedBatch) + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, queue) = mpsc::channel(MAX_QUEUED);
        (Self { queue: sender }, run(pool, queue, commits, on_batch))
    }

    /// Appends the events of one command and returns their global positions.
    ///
    /// # Errors
    /// After [`AppendError::Unknown`] the events may be in the log. After any other
    /// error they are not.
    pub async fn append(&self, mut append: Append) -> AppendResult {
        let (reply, result) = oneshot::channel();
        let meter = append.meter.take();
        let rows = Rows::new(append);
        self.queue
            .try_send(QueuedAppend { rows, meter, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => AppendError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => AppendError::Unavailable,
            })?;
        result.await.unwrap_or(Err(AppendError::Unknown))
    }
}

async fn run(
    pool: PgPool,
    queue: mpsc::Receiver<QueuedAppend>,
    commits: CommitFeed,
    on_batch: impl Fn(AppendedBatch),
) {
    let mut connection = None;
    let mut queue = BatchQueue::new(queue);
    while let Some(count) = queue.next_batch().await {
        let Some(mut connected) = connect(&pool, connection.take()).await else {
            fail(queue.take_all());
            continue;
        };
        let (batch, replies): (Vec<Rows>, Vec<_>) = queue
            .take(count)
            .map(|append| {
                let metered = append
                    .meter
                    .map(|meter| (meter, append.rows.stored_bytes()));
                (append.rows, (append.reply, metered))
            })
            .unzip();
        let sent_at = Instant::now();
        let (results, failure) = write::write_batch(&mut connected, &batch).await;
        on_batch(AppendedBatch {
            events: batch.iter().map(|rows| rows.events.len()).sum(),
            duration: sent_at.elapsed(),
        });
        publish(&commits, batch, &results);
        connection = failure
            .is_none_or(Failure::keeps_connection)
            .then_some(connected);
        for ((reply, metered), result) in replies.into_iter().zip(results) {
            // Here and not by the caller, which may have gone.
            if let (Some((meter, bytes)), Ok(_) | Err(AppendError::Unknown)) = (metered, &result) {
                meter.record(bytes);
            }
            // The events stay written even if the caller has gone.
            let _ = reply.send(result);
        }
        if failure.is_some_and(|failure| failure != Failure::BadData) {
            fail(queue.take_all());
        }
    }
}

/// Takes batches from the queue, in the order of arrival.
struct BatchQueue {
    queue: mpsc::Receiver<QueuedAppend>,
    /// At most [`MAX_BATCH_SIZE`] commands. Some remain after a batch that was full of
    /// events.
    received: Vec<QueuedAppend>,
}

impl BatchQueue {
    fn new(queue: mpsc::Receiver<QueuedAppend>) -> Self {
        Self {
            queue,
            received: Vec::with_capacity(MAX_BATCH_SIZE),
        }
    }

    /// Waits for a command, and receives those behind it that are in the queue already.
    /// Returns how many of them are the next batch; `None` if all handles are dropped and
    /// the queue is empty.
    async fn next_batch(&mut self) -> Option<usize> {
        let waits = self.received.is_empty();
        let free = MAX_BATCH_SIZE - self.received.len();
        let receive = self.queue.recv_many(&mut self.received, free);
        if waits {
            receive.await;
        } else {
            let _ = receive.now_or_never();
        }
        let mut events = 0;
        let fitting = self.received.iter().take_while(|append| {
            events += append.rows.events.len();
            events <= MAX_BATCH_EVENTS
        });
        let count = fitting.count().max(1);
        (!self.received.is_empty()).then_some(count)
    }

    /// Takes the first commands of those received.
    fn take(&mut self, count: usize) -> impl Iterator<Item = QueuedAppend> {
        self.received.drain(..count)
    }

    /// Takes all commands, also those in the queue.
    fn take_all(&mut self) -> impl Iterator<Item = QueuedAppend> {
        let queued = std::iter::from_fn(|| self.queue.try_recv().ok());
        self.received.drain(..).chain(queued)
    }
}

/// Publishes the committed events to the feed.
fn publish(commits: &CommitFeed, batch: Vec<Rows>, results: &[AppendResult]) {
    let last = results.iter().flatten().flatten().last();
    if let Some(last) = last {
        commits.publish(*last, || {
            let committed = batch.into_iter().zip(results);
            committed
                .filter_map(|(rows, result)| Some((rows, result.as_ref().ok()?)))
                .flat_map(|(rows, global_positions)| rows.into_outgoing(global_positions))
                .collect()
        });
    }
}

/// Fails appends that arrived while Postgres was unavailable. Trying each of them
/// would take a timeout, and the commands behind it would wait even longer.
fn fail(queued: impl Iterator<Item = QueuedAppend>) {
    for append in queued {
        let _ = append.reply.send(Err(AppendError::Unavailable));
    }
}

/// Returns the given connection, or detaches a new one from the pool. A pool
/// pings every returned connection, and that would be a second round trip per
/// batch.
async fn connect(pool: &PgPool, connection: Option<PgConnection>) -> Option<PgConnection> {
    if connection.is_some() {
        return connection;
    }
    match pool.acquire().await {
        Ok(acquired) => Some(acquired.detach()),
        Err(error) => {
            tracing::warn!(
                %error,
                "append failed: no connection to Postgres: {error}; clients get 503"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::event::SessionErased;

    use super::*;

    /// A command with this number of events.
    fn queued(events: usize) -> QueuedAppend {
        let now = crate::clock::now();
        let session_id = SessionId::new(now);
        let event = SessionEvent::SessionErased(SessionErased {
            reader_id: session_id.uuid().into(),
            erased_at: now,
        });
        let new = |sequence| NewEvent {
            session_id,
            sequence,
            event: event.clone(),
            metadata: String::new(),
        };
        let append = Append {
            events: (1..).take(events).map(new).collect(),
            ..Append::default()
        };
        QueuedAppend {
            rows: Rows::new(append),
            meter: None,
            reply: oneshot::channel().0,
        }
    }

    fn sizes(commands: impl Iterator<Item = QueuedAppend>) -> Vec<usize> {
        commands.map(|append| append.rows.events.len()).collect()
    }

    /// The batches of a queue with these commands, each as the numbers of events of its
    /// commands.
    async fn batches(commands: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        for events in commands {
            sender.try_send(queued(events)).unwrap();
        }
        drop(sender);
        let mut queue = BatchQueue::new(receiver);
        let mut batches = Vec::new();
        while let Some(count) = queue.next_batch().await {
            batches.push(sizes(queue.take(count)));
        }
        batches
    }

    #[tokio::test]
    async fn batch_is_bounded_by_commands_and_by_events() {
        let single = batches(vec![1; MAX_BATCH_SIZE + 3]).await;
        assert_eq!(single, [vec![1; MAX_BATCH_SIZE], vec![1; 3]]);
        let whole_sessions = batches(vec![502; 40]).await;
        assert_eq!(whole_sessions, [vec![502; 16], vec![502; 16], vec![502; 8]]);
        let exact = batches([MAX_BATCH_EVENTS - 1, 1, 0, 1]).await;
        assert_eq!(exact, [vec![MAX_BATCH_EVENTS - 1, 1, 0], vec![1]]);
    }

    #[tokio::test]
    async fn large_command_keeps_its_place_in_the_queue() {
        let large = MAX_BATCH_EVENTS + 1;
        assert_eq!(
            batches([1, large, 1]).await,
            [vec![1], vec![large], vec![1]]
        );
        let mixed = batches([MAX_BATCH_EVENTS - 1, 2, 1, 1]).await;
        assert_eq!(mixed, [vec![MAX_BATCH_EVENTS - 1], vec![2, 1, 1]]);
    }

    #[tokio::test]
    async fn commands_that_did_not_fit_come_before_later_ones() {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        for events in [MAX_BATCH_EVENTS, 2, 3] {
            sender.try_send(queued(events)).unwrap();
        }
        let mut queue = BatchQueue::new(receiver);
        assert_eq!(queue.next_batch().await, Some(1));
        assert_eq!(sizes(queue.take(1)), [MAX_BATCH_EVENTS]);
        sender.try_send(queued(4)).unwrap();
        assert_eq!(sizes(queue.take_all()), [2, 3, 4]);
    }
}
