//! The task that sends ended spans to the collector, in batches. While the collector is
//! unavailable it retries one batch, and further spans wait in the queue as long as that has
//! room. This module logs one warning per outage.

use std::time::Duration;

use eventlog::availability::Availability;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource as ResourceMessage;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::otlp::{Collector, SendError};
use super::traces::{SCOPE, SpanCounters};

/// The most spans in a request, a few hundred kilobytes.
const MAX_BATCH_SIZE: usize = 512;

/// How long the first span of a batch waits for others.
const BATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The pause before a batch is sent again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How long a shutdown waits for the last spans to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) struct Exporter {
    queue: mpsc::Receiver<SpanData>,
    collector: Collector,
    resource: ResourceMessage,
    availability: Availability,
    counters: SpanCounters,
}

impl Exporter {
    pub(super) fn new(
        queue: mpsc::Receiver<SpanData>,
        collector: Collector,
        resource: &Resource,
        counters: SpanCounters,
    ) -> Self {
        Self {
            queue,
            collector,
            resource: ResourceMessage {
                attributes: ResourceAttributesWithSchema::from(resource).attributes.0,
                ..ResourceMessage::default()
            },
            availability: Availability::new(
                "collector of traces",
                "spans are dropped once thousands wait; requests are not affected",
            ),
            counters,
        }
    }

    /// Exports spans until `stop`, and then those that have ended before it.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let expired = async {
            stop.cancelled().await;
            tokio::time::sleep(FLUSH_TIMEOUT).await;
        };
        tokio::select! {
            // Ends before `stop` in a process whose roles create no spans.
            () = self.export_all(&stop) => stop.cancelled().await,
            () = expired => tracing::warn!(
                "exporting the last spans timed out after {FLUSH_TIMEOUT:?}: they are dropped"
            ),
        }
    }

    async fn export_all(&mut self, stop: &CancellationToken) {
        loop {
            let batch = self.next_batch(stop).await;
            if batch.is_empty() {
                return;
            }
            self.export(batch, stop).await;
        }
    }

    /// The next spans. After `stop` it does not wait; empty if there are no more.
    async fn next_batch(&mut self, stop: &CancellationToken) -> Vec<SpanData> {
        let mut batch = Vec::new();
        let mut ends_at = None;
        while batch.len() < MAX_BATCH_SIZE {
            let room = MAX_BATCH_SIZE - batch.len();
            let end = async {
                match ends_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let received = tokio::select! {
                biased;
                count = self.queue.recv_many(&mut batch, room) => count,
                () = stop.cancelled() => 0,
                () = end => 0,
            };
            if received == 0 {
                break;
            }
            ends_at.get_or_insert_with(|| Instant::now() + BATCH_INTERVAL);
        }
        batch
    }

    fn request(&self, batch: Vec<SpanData>) -> ExportTraceServiceRequest {
        let scope_spans = ScopeSpans {
            scope: Some(InstrumentationScope {
                name: SCOPE.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            spans: batch.into_iter().map(Span::from).collect(),
            ..ScopeSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![scope_spans],
                ..ResourceSpans::default()
            }],
        }
    }

    async fn export(&self, batch: Vec<SpanData>, stop: &CancellationToken) {
        let count = batch.len() as u64;
        let request = self.request(batch);
        let accepted = loop {
            match self.collector.send(&request).await {
                Ok(rejected) => {
                    self.availability.succeeded();
                    break count.saturating_sub(rejected);
                }
                Err(error) => {
                    self.availability.failed(&error);
                    if matches!(error, SendError::Refused(_)) || stop.is_cancelled() {
                        break 0;
                    }
                }
            }
            let _ = tokio::time::timeout(RETRY_DELAY, stop.cancelled()).await;
        };
        self.counters.exported.inc_by(accepted);
        self.counters.dropped.inc_by(count - accepted);
    }
}
