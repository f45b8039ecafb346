//! Group commit: one task appends the commands of all requests, batch by
//! batch. While one transaction is in flight the next batch gathers, so there
//! is no timer: an idle service commits a lone command at once, a busy one
//! commits hundreds together.

use std::slice;
use std::time::Duration;

use domain::{ReaderId, SessionEvent, SessionId};
use sqlx::{PgConnection, PgPool};
use tokio::sync::{mpsc, oneshot};

use crate::AppendError;
use crate::commit_feed::CommitFeed;
use crate::deadline::with_deadline;

mod rows;
use rows::{Columns, Rows};

/// Commands that may wait for the next batch; more are refused at once.
/// Enough for some seconds of a saturated log, so a short stall is not seen.
const MAX_WAITING: usize = 8_192;

/// Commands in one transaction. Beyond this a larger batch no longer makes a
/// command cheaper, but its neighbours wait longer.
const MAX_BATCH: usize = 512;

/// How long Postgres may take to answer an append: somewhat longer than the
/// statement may take there, so that it is the server that gives up if it can,
/// and then the outcome is known.
const DEADLINE: Duration = Duration::from_secs(7);

/// The effect of one command: all of it is written, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// The new events, in order.
    pub events: Vec<NewEvent>,
    /// How the reader's claim changes.
    pub claim: Option<ClaimChange>,
    /// The answer to keep for a repeat of the command.
    pub answer: Option<KeyedAnswer>,
}

/// An event to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its session.
    pub session_id: SessionId,
    /// Its place in the session, from 1. Taken already: the command conflicts.
    pub sequence: i64,
    /// The event.
    pub event: SessionEvent,
    /// What came with the command, as a JSON object.
    pub metadata: String,
}

/// A reader's active session changes.
#[derive(Clone, Copy, Debug)]
pub struct ClaimChange {
    /// Whose.
    pub reader_id: ReaderId,
    /// The active session that the decision rests on. Another one by now: the
    /// command conflicts.
    pub expected: Option<SessionId>,
    /// The active session after the command.
    pub next: Option<SessionId>,
}

/// An answer to be kept under an idempotency key.
#[derive(Clone, Debug)]
pub struct KeyedAnswer {
    /// Whose key it is.
    pub reader_id: ReaderId,
    /// The key. Used already: the command conflicts.
    pub key: String,
    /// Tells a repeat of the command from another command.
    pub fingerprint: Vec<u8>,
    /// The answer, as JSON.
    pub answer: String,
}

/// A handle to the appending task; cheap to clone. The task ends when the last
/// handle is gone and all that was waiting is written.
#[derive(Clone, Debug)]
pub struct Appender {
    jobs: mpsc::Sender<Job>,
}

type Positions = Result<Vec<i64>, AppendError>;

#[derive(Debug)]
struct Job {
    rows: Rows,
    reply: oneshot::Sender<Positions>,
}

impl Appender {
    /// The handle, and the task to spawn. The task takes a connection of its
    /// own out of `pool`.
    pub fn new(
        pool: PgPool,
        commits: CommitFeed,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        (Self { jobs }, run(pool, waiting, commits))
    }

    /// Appends the events of one command and returns their global positions.
    ///
    /// # Errors
    /// See [`AppendError`]; only [`AppendError::Unknown`] leaves open whether
    /// the events were written.
    pub async fn append(&self, append: Append) -> Positions {
        let (reply, answer) = oneshot::channel();
        let rows = Rows::of(append);
        self.jobs
            .try_send(Job { rows, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => AppendError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => AppendError::Unavailable,
            })?;
        answer.await.unwrap_or(Err(AppendError::Unknown))
    }
}

async fn run(pool: PgPool, mut waiting: mpsc::Receiver<Job>, commits: CommitFeed) {
    let mut connection = None;
    let mut jobs = Vec::with_capacity(MAX_BATCH);
    while waiting.recv_many(&mut jobs, MAX_BATCH).await > 0 {
        let Some(mut link) = connected(&pool, connection.take()).await else {
            refuse(jobs.drain(..));
            refuse(std::iter::from_fn(|| waiting.try_recv().ok()));
            continue;
        };
        let (batch, replies): (Vec<Rows>, Vec<_>) =
            jobs.drain(..).map(|job| (job.rows, job.reply)).unzip();
        let (results, trouble) = write_batch(&mut link, &batch).await;
        tell(&commits, batch, &results);
        connection = trouble
            .is_none_or(Failure::leaves_a_good_connection)
            .then_some(link);
        for (reply, result) in replies.into_iter().zip(results) {
            // A caller that has gone away does not undo what was written.
            let _ = reply.send(result);
        }
        if trouble.is_some_and(|failure| failure != Failure::Bad) {
            refuse(std::iter::from_fn(|| waiting.try_recv().ok()));
        }
    }
}

/// Tells of what was written.
fn tell(commits: &CommitFeed, batch: Vec<Rows>, results: &[Positions]) {
    let last = results.iter().flatten().flatten().last();
    if let Some(last) = last {
        commits.tell(*last, || {
            let written = batch.into_iter().zip(results);
            written
                .filter_map(|(rows, result)| Some((rows, result.as_ref().ok()?)))
                .flat_map(|(rows, positions)| rows.outgoing(positions))
                .collect()
        });
    }
}

/// Refuses what came while Postgres did not answer: it would wait as long
/// again, and what comes behind it longer.
fn refuse(jobs: impl Iterator<Item = Job>) {
    for job in jobs {
        let _ = job.reply.send(Err(AppendError::Unavailable));
    }
}

/// The connection there is, else a new one, out of the pool for good: a pool
/// pings what comes back to it, which would be a second round trip for every
/// batch.
async fn connected(pool: &PgPool, connection: Option<PgConnection>) -> Option<PgConnection> {
    if connection.is_some() {
        return connection;
    }
    match pool.acquire().await {
        Ok(acquired) => Some(acquired.detach()),
        Err(error) => {
            tracing::warn!(%error, "no connection to append with");
            None
        }
    }
}

/// Writes a batch; one that the database cannot take whole is written command
/// by command, so that one bad command fails alone. Also tells what went wrong
/// last.
async fn write_batch(link: &mut PgConnection, batch: &[Rows]) -> (Vec<Positions>, Option<Failure>) {
    let count = batch.len();
    let failure = match write(link, batch).await {
        Ok(results) => return (results, None),
        Err(failure) => failure,
    };
    let mut results = Vec::with_capacity(count);
    let mut last = failure;
    if last == Failure::Bad && count > 1 {
        for rows in batch {
            match write(link, slice::from_ref(rows)).await {
                Ok(result) => results.extend(result),
                Err(failure) => {
                    results.push(Err(failure.into()));
                    last = failure;
                    // Nor would it take the others.
                    if last != Failure::Bad {
                        break;
                    }
                }
            }
        }
    }
    // What was not tried is not written, whatever became of the one before.
    let rest = if results.is_empty() {
        last.into()
    } else {
        AppendError::Unavailable
    };
    results.resize(count, Err(rest));
    (results, Some(last))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The database refuses the data; nothing was written.
    Bad,
    /// The database is too busy; nothing was written.
    Busy,
    /// The database refuses for now, or this connection; nothing was written.
    Unavailable,
    /// The connection broke; anything may be.
    Unknown,
}

impl Failure {
    /// By the server's word that nothing was written.
    fn of(code: &str) -> Self {
        match code {
            // A lock or the statement took too long.
            "55P03" | "57014" => Self::Busy,
            // The data's fault (an unpaired surrogate in JSON), as is a
            // missing partition.
            _ if code.starts_with("22") || code.starts_with("23") => Self::Bad,
            // A deadlock, say.
            _ if code.starts_with("40") => Self::Busy,
            // The server goes down, is read-only, out of something, or of
            // another version: whoever answers a new connection may know better.
            _ => Self::Unavailable,
        }
    }

    fn leaves_a_good_connection(self) -> bool {
        matches!(self, Self::Bad | Self::Busy)
    }
}

impl From<Failure> for AppendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Bad | Failure::Busy | Failure::Unavailable => Self::Unavailable,
            Failure::Unknown => Self::Unknown,
        }
    }
}

/// One round trip: the function is its own transaction, and its answer means
/// that the transaction is on disk.
async fn write(link: &mut PgConnection, batch: &[Rows]) -> Result<Vec<Positions>, Failure> {
    match with_deadline(DEADLINE, call(link, batch)).await {
        Ok(row) => Ok(share(batch, &row)),
        Err(sqlx::Error::Database(error)) => {
            let code = error.code().unwrap_or_default().into_owned();
            tracing::warn!(%error, code, commands = batch.len(), "a batch was not appended");
            Err(Failure::of(&code))
        }
        Err(error) => {
            tracing::warn!(%error, commands = batch.len(), "the connection broke while appending");
            Err(Failure::Unknown)
        }
    }
}

struct Written {
    refused: Vec<i32>,
    positions: Vec<i64>,
}

async fn call(connection: &mut PgConnection, batch: &[Rows]) -> sqlx::Result<Written> {
    let columns = Columns::of(batch);
    sqlx::query_file_as!(
        Written,
        "src/append/append.sql",
        &columns.events.commands,
        columns.events.session_ids as _,
        &columns.events.sequences,
        columns.events.aggregate_types as _,
        columns.events.event_types as _,
        columns.events.event_versions as _,
        columns.events.payloads as _,
        columns.events.metadatas as _,
        &columns.claims.commands,
        &columns.claims.readers,
        columns.claims.expected as _,
        columns.claims.next as _,
        &columns.answers.commands,
        &columns.answers.readers,
        columns.answers.keys as _,
        columns.answers.fingerprints as _,
        columns.answers.answers as _,
    )
    .fetch_one(&mut *connection)
    .await
}

/// Gives each command its share of the positions, which come in the order of
/// the events of all that were not refused.
fn share(batch: &[Rows], written: &Written) -> Vec<Positions> {
    let mut positions = written.positions.iter().copied();
    (0..)
        .zip(batch)
        .map(|(command, rows)| {
            if written.refused.contains(&command) {
                Err(AppendError::Conflict)
            } else {
                Ok(positions.by_ref().take(rows.events.len()).collect())
            }
        })
        .collect()
}
