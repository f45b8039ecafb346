//! The tracer of this process: its sampler, the bounded queue of ended spans, and the
//! counters. Requests never wait for it: a span that finds the queue full is dropped and
//! counted.

use std::time::Duration;

use anyhow::Context as _;
use eventlog::trace::Traces;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use super::export::Exporter;
use super::otlp::Collector;
use crate::config::{Role, ServeArgs, TraceArgs, TracesSampler};

/// The most ended spans that wait for the exporter, some megabytes.
const MAX_QUEUED: usize = 8_192;

/// The name of what creates the spans.
pub(super) const SCOPE: &str = "reading-sessions";

/// The spans of this process.
#[derive(Clone, Debug, Default)]
pub(super) struct SpanCounters {
    pub exported: Counter,
    pub dropped: Counter,
}

/// Returns the tracer, and the exporter of its spans, which the caller runs. `None` without a
/// collector. `instance` identifies the process.
///
/// # Errors
/// When a setting is wrong. The collector may be unreachable.
pub(crate) fn start(
    args: &ServeArgs,
    instance: &str,
    registry: &mut Registry,
) -> anyhow::Result<Option<(Traces, Exporter)>> {
    let Some(endpoint) = args.traces.endpoint()? else {
        return Ok(None);
    };
    let collector = Collector::new(&args.traces, &endpoint)
        .context("the settings of the collector of traces are wrong")?;
    tracing::info!(
        endpoint = %collector,
        sampler = %args.traces.traces_sampler,
        "traces are exported to {collector}"
    );
    let counters = SpanCounters::default();
    counters.register(registry);
    let (sender, queue) = mpsc::channel(MAX_QUEUED);
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler(&args.traces))
        .with_span_processor(SpanQueue {
            sender,
            dropped: counters.dropped.clone(),
        })
        .build();
    let tracer = BoxedTracer::new(Box::new(provider.tracer(SCOPE)));
    let exporter = Exporter::new(queue, collector, &resource(args, instance), counters);
    Ok(Some((Traces::new(tracer), exporter)))
}

impl SpanCounters {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "reading_sessions_spans_exported",
            "Number of spans that the collector of traces has accepted",
            self.exported.clone(),
        );
        registry.register(
            "reading_sessions_spans_dropped",
            "Number of spans that were not exported, because the collector of traces is \
             unreachable, slow or has rejected them",
            self.dropped.clone(),
        );
    }
}

fn sampler(args: &TraceArgs) -> Sampler {
    let ratio = Sampler::TraceIdRatioBased(args.traces_sampler_arg);
    let parent_based = |root: Sampler| Sampler::ParentBased(Box::new(root));
    match args.traces_sampler {
        TracesSampler::AlwaysOn => Sampler::AlwaysOn,
        TracesSampler::AlwaysOff => Sampler::AlwaysOff,
        TracesSampler::TraceIdRatio => ratio,
        TracesSampler::ParentBasedAlwaysOn => parent_based(Sampler::AlwaysOn),
        TracesSampler::ParentBasedAlwaysOff => parent_based(Sampler::AlwaysOff),
        TracesSampler::ParentBasedTraceIdRatio => parent_based(ratio),
    }
}

/// The attributes that identify the process in all its spans, with those of the SDK and of
/// `OTEL_RESOURCE_ATTRIBUTES`.
fn resource(args: &ServeArgs, instance: &str) -> Resource {
    let roles = Role::ALL.into_iter().filter(|role| args.has(*role));
    let roles: Vec<&str> = roles.map(Role::as_str).collect();
    Resource::builder()
        .with_service_name(args.traces.otel_service_name.clone())
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("reading_sessions.roles", roles.join(",")),
        ])
        .build()
}

/// Passes ended spans to the exporter.
#[derive(Debug)]
struct SpanQueue {
    sender: mpsc::Sender<SpanData>,
    dropped: Counter,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
