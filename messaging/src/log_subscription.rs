//! An ordered subscription to the log, for projections: live events come from the
//! fan-out, all others from Postgres.
//!
//! Each live event names its predecessor. So the subscription detects a lost event
//! and reads the log. It never skips an event and never returns one twice.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::{LogEntry, LogError, StoredEvent, read};
use sqlx::PgPool;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinHandle;

use crate::fan_out::{Chunk, LiveEvent};

/// How long a subscription waits for live events before it reads the log. While
/// NATS is unavailable, projections receive events this often.
const LIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the log in order, from the fan-out while it has no gap.
#[derive(Debug)]
pub struct LogSubscription {
    pool: PgPool,
    chunks: broadcast::Receiver<Chunk>,
    /// Received events that were not returned yet.
    pending: VecDeque<LiveEvent>,
    /// `true` while no gap is known; otherwise the subscription reads the log.
    is_live: bool,
    /// When the last live event arrived, or the log was read.
    updated_at: Instant,
    read: Option<LogRead>,
}

/// A read of the log in a task of its own. It continues if the caller stops waiting, and
/// while the events before it are applied.
#[derive(Debug)]
struct LogRead {
    after: i64,
    limit: usize,
    task: JoinHandle<Result<Vec<LogEntry>, LogError>>,
}

impl Drop for LogRead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LogSubscription {
    pub(crate) fn new(pool: PgPool, chunks: broadcast::Receiver<Chunk>) -> Self {
        Self {
            pool,
            chunks,
            pending: VecDeque::new(),
            is_live: false,
            updated_at: Instant::now(),
            read: None,
        }
    }

    /// The events after a global position, in order and without a gap, at most
    /// `limit`. Waits for them up to [`LIVE_TIMEOUT`], then reads the log once more.
    /// `None` if the log contains no more events.
    ///
    /// The future may be dropped: the next call returns the same events.
    pub async fn next_batch(
        &mut self,
        after: i64,
        limit: usize,
    ) -> Result<Option<Vec<LogEntry>>, LogError> {
        loop {
            if !self.is_live {
                let events = self.read_log(after, limit).await?;
                self.is_live = events.len() < limit;
                return Ok(Some(events).filter(|events| !events.is_empty()));
            }
            let events = self.read_live(after, limit).await;
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
    }

    /// Reads a batch from the log. After a full batch, starts to read the next one.
    async fn read_log(&mut self, after: i64, limit: usize) -> Result<Vec<LogEntry>, LogError> {
        let started = self.read.take();
        let read = match started.filter(|read| (read.after, read.limit) == (after, limit)) {
            Some(read) => read,
            None => self.start_read(after, limit),
        };
        // Stays in `self`, so that the next call continues to wait for it.
        let task = &mut self.read.insert(read).task;
        let events = task
            .await
            .map_err(|error| LogError::Unavailable(Box::new(error)));
        self.read = None;
        let events = events??;
        self.updated_at = Instant::now();
        if events.len() == limit
            && let Some(last) = events.last()
        {
            self.read = Some(self.start_read(last.global_position(), limit));
        }
        Ok(events)
    }

    fn start_read(&self, after: i64, limit: usize) -> LogRead {
        LogRead {
            after,
            limit,
            task: tokio::spawn(read_batch(self.pool.clone(), after, limit)),
        }
    }

    /// The live events after a global position. Empty after a timeout or a gap; then
    /// the log must be read.
    async fn read_live(&mut self, after: i64, limit: usize) -> Vec<LogEntry> {
        let mut global_position = after;
        let mut events = Vec::new();
        while events.len() < limit {
            let Some(live) = self.pending.pop_front() else {
                let may_wait = events.is_empty();
                match self.receive(may_wait).await {
                    Some(chunk) => {
                        self.pending.extend(chunk.iter().cloned());
                        continue;
                    }
                    None => break,
                }
            };
            if live.event.global_position <= global_position {
                continue;
            }
            if live.previous > global_position {
                self.is_live = false;
                break;
            }
            global_position = live.event.global_position;
            events.push(LogEntry::Event(live.event, live.traceparent));
        }
        events
    }

    async fn receive(&mut self, may_wait: bool) -> Option<Chunk> {
        match self.chunks.try_recv() {
            Ok(chunk) => {
                self.updated_at = Instant::now();
                return Some(chunk);
            }
            Err(TryRecvError::Empty) if may_wait => {}
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => {
                self.is_live = false;
                return None;
            }
        }
        let timeout = LIVE_TIMEOUT.saturating_sub(self.updated_at.elapsed());
        match tokio::time::timeout(timeout, self.chunks.recv()).await {
            Ok(Ok(chunk)) => {
                self.updated_at = Instant::now();
                Some(chunk)
            }
            Ok(Err(RecvError::Lagged(_))) | Err(_) => {
                self.is_live = false;
                None
            }
            Ok(Err(RecvError::Closed)) => {
                // The fan-out ends only at shutdown, which drops this future.
                tokio::time::sleep(timeout).await;
                self.is_live = false;
                None
            }
        }
    }
}

async fn read_batch(pool: PgPool, after: i64, limit: usize) -> Result<Vec<LogEntry>, LogError> {
    let limit = i64::try_from(limit).expect("a batch is far below 2^63");
    let stored = with_deadline(STATEMENT_DEADLINE, read::after(&pool, after, limit)).await?;
    Ok(stored
        .into_iter()
        .map(StoredEvent::into_log_entry)
        .collect())
}
