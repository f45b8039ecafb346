//! Group commit: one task per process appends the commands of all requests in
//! batches.
//!
//! While one transaction is in flight, new commands join the next batch. There is
//! no timer: an idle service commits a single command at once, a busy one commits
//! hundreds together. A refused command never fails the others of its batch.
//!
//! This module decides nothing. It never retries: after a conflict the caller
//! decides again.

use domain::{ReaderId, SessionEvent, SessionId};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};

use crate::AppendError;
use crate::commit_feed::CommitFeed;

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

/// The effect of one command. It is written completely or not at all.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// The new events, in order.
    pub events: Vec<NewEvent>,
    pub claim: Option<ActiveClaimChange>,
    /// The response to store for repeats of the command.
    pub response: Option<KeyedResponse>,
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

/// Changes a reader's active-session claim.
#[derive(Clone, Copy, Debug)]
pub struct ActiveClaimChange {
    pub reader_id: ReaderId,
    /// The active session that the decision assumes. If the reader has another one,
    /// the append conflicts.
    pub expected: Option<SessionId>,
    /// The active session after the command.
    pub next: Option<SessionId>,
}

/// The response of a command, to be stored under its idempotency key.
#[derive(Clone, Debug)]
pub struct KeyedResponse {
    pub reader_id: ReaderId,
    /// Each reader has its own keys. If this one is in use, the append conflicts.
    pub key: String,
    /// Distinguishes a repeat of the command from another command.
    pub fingerprint: Vec<u8>,
    /// A [`crate::idempotency::Decision`] as JSON.
    pub response: String,
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
    reply: oneshot::Sender<AppendResult>,
}

impl Appender {
    /// Returns the handle and the task, which the caller spawns. The task takes a
    /// connection out of `pool` and keeps it.
    pub fn new(
        pool: PgPool,
        commits: CommitFeed,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, queue) = mpsc::channel(MAX_QUEUED);
        (Self { queue: sender }, run(pool, queue, commits))
    }

    /// Appends the events of one command and returns their global positions.
    ///
    /// # Errors
    /// After [`AppendError::Unknown`] the events may be in the log. After any other
    /// error they are not.
    pub async fn append(&self, append: Append) -> AppendResult {
        let (reply, result) = oneshot::channel();
        let rows = Rows::new(append);
        self.queue
            .try_send(QueuedAppend { rows, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => AppendError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => AppendError::Unavailable,
            })?;
        result.await.unwrap_or(Err(AppendError::Unknown))
    }
}

async fn run(pool: PgPool, mut queue: mpsc::Receiver<QueuedAppend>, commits: CommitFeed) {
    let mut connection = None;
    let mut queued = Vec::with_capacity(MAX_BATCH_SIZE);
    while queue.recv_many(&mut queued, MAX_BATCH_SIZE).await > 0 {
        let Some(mut connected) = connect(&pool, connection.take()).await else {
            fail(queued.drain(..));
            fail(std::iter::from_fn(|| queue.try_recv().ok()));
            continue;
        };
        let (batch, replies): (Vec<Rows>, Vec<_>) = queued
            .drain(..)
            .map(|append| (append.rows, append.reply))
            .unzip();
        let (results, failure) = write::write_batch(&mut connected, &batch).await;
        publish(&commits, batch, &results);
        connection = failure
            .is_none_or(Failure::keeps_connection)
            .then_some(connected);
        for (reply, result) in replies.into_iter().zip(results) {
            // The events stay written even if the caller has gone.
            let _ = reply.send(result);
        }
        if failure.is_some_and(|failure| failure != Failure::BadData) {
            fail(std::iter::from_fn(|| queue.try_recv().ok()));
        }
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
