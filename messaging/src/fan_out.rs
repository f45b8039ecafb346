//! The NATS fan-out: one consumer per process feeds all its projections with live
//! events.
//!
//! The fan-out need not be reliable. It may miss events when it starts, when a
//! subscriber is slow, or when NATS loses events.
//! [`LogSubscription`] detects gaps and reads the log instead.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use eventlog::RecordedEvent;
use eventlog::trace::TraceParent;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use sqlx::PgPool;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::cloud_event::CloudEvent;
use crate::{LogSubscription, Subjects};

/// The most events that are passed on together.
const CHUNK_SIZE: usize = 256;

/// Chunks that are kept for slow projections. A projection that falls further
/// behind reads the log instead.
const MAX_BUFFERED_CHUNKS: usize = 64;

/// The pause after an error.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The interval between two look-ups of a missing stream. The relay creates the stream
/// when it starts.
const STREAM_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The interval of JetStream's heartbeats while there are no events. Without a heartbeat
/// for twice as long, the consumer is lost.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// When JetStream deletes a consumer that no client polls.
const INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);

/// A live event.
#[derive(Clone, Debug)]
pub(crate) struct LiveEvent {
    /// The global position of the previous event.
    pub(crate) previous: i64,
    pub(crate) event: Arc<RecordedEvent>,
    pub(crate) traceparent: Option<TraceParent>,
}

pub(crate) type Chunk = Arc<[LiveEvent]>;

/// Passes live events to any number of subscriptions. Clones share them.
#[derive(Clone, Debug)]
pub struct FanOut {
    chunks: broadcast::Sender<Chunk>,
}

impl Default for FanOut {
    fn default() -> Self {
        Self {
            chunks: broadcast::Sender::new(MAX_BUFFERED_CHUNKS),
        }
    }
}

impl FanOut {
    /// A subscription that reads gaps from `pool`. If [`FanOut::run`] does not run, it
    /// reads everything from there.
    #[must_use]
    pub fn subscribe(&self, pool: PgPool) -> LogSubscription {
        LogSubscription::new(pool, self.chunks.subscribe())
    }

    /// Consumes the stream until `shutdown`.
    ///
    /// The future is boxed so that this crate alone compiles it (decision 0020).
    #[must_use]
    pub fn run(
        self,
        jetstream: jetstream::Context,
        subjects: Subjects,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let consume = async {
                loop {
                    if let Err(error) = self.consume(&jetstream, &subjects).await {
                        tracing::warn!(
                            error,
                            "consuming the stream failed: {error}; projections read the log until it works again"
                        );
                    }
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = consume => {}
            }
        })
    }

    /// Consumes the stream until the first error. The caller then creates another
    /// consumer.
    ///
    /// The consumer has no name. The ordered consumer of the client library recovers by
    /// itself, but it creates consumers by name. No NATS user has that permission,
    /// because it also allows deleting the consumers of others.
    async fn consume(
        &self,
        jetstream: &jetstream::Context,
        subjects: &Subjects,
    ) -> Result<(), async_nats::Error> {
        // Wait for the connection. The client queues requests while it is
        // disconnected, so each attempt would create another consumer later.
        jetstream.client().flush().await?;
        let config = Config {
            deliver_policy: DeliverPolicy::New,
            filter_subject: subjects.all(),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: INACTIVE_THRESHOLD,
            ..Config::default()
        };
        let consumer = loop {
            let created = jetstream.create_consumer_on_stream(config.clone(), subjects.stream());
            match created.await {
                Err(error) if is_stream_not_found(&error) => {
                    tokio::time::sleep(STREAM_POLL_INTERVAL).await;
                }
                created => break created?,
            }
        };
        let mut messages = consumer
            .stream()
            .max_messages_per_batch(2 * CHUNK_SIZE)
            .heartbeat(HEARTBEAT_INTERVAL)
            .messages()
            .await?;
        while let Some(first) = messages.next().await {
            let mut chunk = Vec::with_capacity(CHUNK_SIZE);
            chunk.extend(decode(&first?.payload));
            while chunk.len() < CHUNK_SIZE
                && let Some(Some(message)) = messages.next().now_or_never()
            {
                chunk.extend(decode(&message?.payload));
            }
            // An empty chunk carries no information: subscriptions that receive nothing
            // read the log. The send fails if there is no subscription.
            if !chunk.is_empty() {
                let _ = self.chunks.send(chunk.into());
            }
        }
        Ok(())
    }
}

fn is_stream_not_found(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// `None` if the event cannot be decoded. Subscriptions then find a gap and read the
/// event from the log, where its error is handled.
fn decode(payload: &[u8]) -> Option<LiveEvent> {
    let event: CloudEvent = serde_json::from_slice(payload).ok()?;
    let traceparent = event.traceparent.as_deref();
    Some(LiveEvent {
        previous: event.previousposition,
        traceparent: traceparent.and_then(TraceParent::parse),
        event: Arc::new(event.decode().ok()?),
    })
}
