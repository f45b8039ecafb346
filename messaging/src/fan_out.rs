//! The end of the log as it grows, for projections: live events come from
//! JetStream, and whatever is missing there comes from Postgres.
//!
//! One consumer a process feeds all its projections. Nothing here has to be
//! reliable: every event says which one it follows, so a reader that missed
//! something (at its start, when it was slow, when NATS lost or lacks an
//! event) sees that itself and reads the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use futures::{FutureExt, StreamExt};
use sqlx::PgPool;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cloud_event::CloudEvent;
use eventlog::deadline::with_deadline;
use eventlog::{LogError, Logged, Recorded, Stored, read};

use crate::Subjects;

/// Events passed on together.
const CHUNK: usize = 256;

/// Chunks kept for slow projections; one that falls further behind reads the
/// log instead.
const KEPT_CHUNKS: usize = 64;

/// How long a reader waits for live events before it asks the log. Also what
/// keeps projections going when NATS is away.
const QUIET: Duration = Duration::from_secs(1);

/// How long Postgres may take to answer a reader.
const DEADLINE: Duration = Duration::from_secs(35);

/// The pause before the stream is asked again.
const ERROR_PAUSE: Duration = Duration::from_millis(500);

/// The pause while there is no stream.
const MADE_SOON: Duration = Duration::from_millis(100);

/// How often JetStream says that a consumer without events is still there; after
/// twice as long without a word it is gone.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// When JetStream forgets a consumer that nobody asks any more.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// A live event, and the position of the one before it.
#[derive(Clone, Debug)]
struct Live {
    previous: i64,
    event: Arc<Recorded>,
}

type Chunk = Arc<[Live]>;

/// Hands live events to any number of readers.
#[derive(Clone, Debug)]
pub struct FanOut {
    chunks: broadcast::Sender<Chunk>,
}

impl Default for FanOut {
    fn default() -> Self {
        Self {
            chunks: broadcast::Sender::new(KEPT_CHUNKS),
        }
    }
}

impl FanOut {
    /// A reader; it starts wherever [`LogSubscription::next_or_quiet`] is told to.
    #[must_use]
    pub fn reader(&self, pool: PgPool) -> LogSubscription {
        LogSubscription {
            pool,
            chunks: self.chunks.subscribe(),
            pending: VecDeque::new(),
            complete: false,
            ahead: None,
        }
    }

    /// Follows the stream until `shutdown`.
    pub async fn run(
        self,
        jetstream: jetstream::Context,
        subjects: Subjects,
        shutdown: CancellationToken,
    ) {
        let follow = async {
            loop {
                if let Err(error) = self.follow(&jetstream, &subjects).await {
                    tracing::warn!(error, "the stream is followed anew");
                }
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow => {}
        }
    }

    /// Follows by a consumer without a name, until there is any error: then
    /// another one is made. The client's ordered consumer would make the next
    /// one itself, but by a name, and no user may make and delete consumers by
    /// name that others might have; and order is checked by the readers.
    async fn follow(
        &self,
        jetstream: &jetstream::Context,
        subjects: &Subjects,
    ) -> Result<(), async_nats::Error> {
        // Waits for the connection. What is asked without one waits in the
        // client, and would make a consumer for each time it was asked.
        jetstream.client().flush().await?;
        let consumer = Config {
            deliver_policy: DeliverPolicy::New,
            filter_subject: subjects.all(),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: FORGOTTEN,
            ..Config::default()
        };
        let consumer = loop {
            let made = jetstream.create_consumer_on_stream(consumer.clone(), subjects.stream());
            match made.await {
                Err(error) if is_without_stream(&error) => tokio::time::sleep(MADE_SOON).await,
                made => break made?,
            }
        };
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(2 * CHUNK)
            .heartbeat(HEARTBEAT)
            .messages()
            .await?;
        while let Some(first) = messages.next().await {
            let mut chunk = Vec::with_capacity(CHUNK);
            chunk.extend(live(&first?.payload));
            while chunk.len() < CHUNK
                && let Some(Some(message)) = messages.next().now_or_never()
            {
                chunk.extend(live(&message?.payload));
            }
            // Nothing that is understood is as good as silence: whoever hears
            // nothing asks the log, which has the rest. Without a reader there is
            // nobody to miss it.
            if !chunk.is_empty() {
                let _ = self.chunks.send(chunk.into());
            }
        }
        Ok(())
    }
}

/// Whether there is no stream yet, or no more; the relay makes it.
fn is_without_stream(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// `None` for what cannot be decoded: its readers then see a hole, read the
/// log, and meet the same event there.
fn live(payload: &[u8]) -> Option<Live> {
    let event: CloudEvent = serde_json::from_slice(payload).ok()?;
    Some(Live {
        previous: event.previousposition,
        event: Arc::new(event.decode().ok()?),
    })
}

/// Reads the log in order, from the stream as long as it has no hole.
#[derive(Debug)]
pub struct LogSubscription {
    pool: PgPool,
    chunks: broadcast::Receiver<Chunk>,
    pending: VecDeque<Live>,
    /// Whether all before the next live event is known to have been read.
    complete: bool,
    ahead: Option<Ahead>,
}

/// A chunk of the log that is read while the one before it is applied.
#[derive(Debug)]
struct Ahead {
    after: i64,
    limit: usize,
    reading: JoinHandle<Result<Vec<Logged>, LogError>>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl LogSubscription {
    /// What stands in the log after a position, in order and without a hole: at
    /// most about `limit` events. Waits a moment for them; `None` when there is
    /// nothing more.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn next_or_quiet(
        &mut self,
        after: i64,
        limit: usize,
    ) -> Result<Option<Vec<Logged>>, LogError> {
        loop {
            if !self.complete {
                let events = self.read_log(after, limit).await?;
                self.complete = events.len() < limit;
                return Ok(Some(events).filter(|events| !events.is_empty()));
            }
            let events = self.read_stream(after, limit).await;
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
    }

    /// Who has far to go reads the next chunk in the meantime.
    async fn read_log(&mut self, after: i64, limit: usize) -> Result<Vec<Logged>, LogError> {
        let ahead = self.ahead.take();
        let events = match ahead.filter(|ahead| (ahead.after, ahead.limit) == (after, limit)) {
            Some(mut ahead) => (&mut ahead.reading)
                .await
                .map_err(|error| LogError::Unavailable(Box::new(error)))??,
            None => read_chunk(self.pool.clone(), after, limit).await?,
        };
        if events.len() == limit
            && let Some(last) = events.last()
        {
            let after = last.global_position();
            self.ahead = Some(Ahead {
                after,
                limit,
                reading: tokio::spawn(read_chunk(self.pool.clone(), after, limit)),
            });
        }
        Ok(events)
    }

    /// What the stream has after a position; nothing when it is quiet or has a
    /// hole, and then the log is to be asked.
    async fn read_stream(&mut self, after: i64, limit: usize) -> Vec<Logged> {
        let mut position = after;
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
            if live.event.global_position <= position {
                continue;
            }
            if live.previous > position {
                self.complete = false;
                break;
            }
            position = live.event.global_position;
            events.push(Logged::Event(live.event));
        }
        events
    }

    async fn receive(&mut self, may_wait: bool) -> Option<Chunk> {
        match self.chunks.try_recv() {
            Ok(chunk) => return Some(chunk),
            Err(TryRecvError::Empty) if may_wait => {}
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => {
                self.complete = false;
                return None;
            }
        }
        match tokio::time::timeout(QUIET, self.chunks.recv()).await {
            Ok(Ok(chunk)) => Some(chunk),
            Ok(Err(RecvError::Lagged(_))) | Err(_) => {
                self.complete = false;
                None
            }
            Ok(Err(RecvError::Closed)) => {
                // Only at shutdown, and then this future is dropped.
                tokio::time::sleep(QUIET).await;
                self.complete = false;
                None
            }
        }
    }
}

async fn read_chunk(pool: PgPool, after: i64, limit: usize) -> Result<Vec<Logged>, LogError> {
    let limit = i64::try_from(limit).expect("a batch is far below 2^63");
    let stored = with_deadline(DEADLINE, read::after(&pool, after, limit)).await?;
    Ok(stored.into_iter().map(Stored::logged).collect())
}
