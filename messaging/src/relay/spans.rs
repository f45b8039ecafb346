//! A span for each published event whose trace is sampled: from the read of its window until
//! `JetStream` has stored the window.

use eventlog::clock;
use eventlog::outgoing::OutgoingEvent;
use eventlog::trace::{GLOBAL_POSITION, Span, SpanKind, TraceParent, Traces};

use super::RelayError;
use crate::Subjects;
use crate::subject::short_name;

pub(super) fn start(traces: &Traces, events: &[OutgoingEvent], subjects: &Subjects) -> Vec<Span> {
    if !traces.is_on() {
        return Vec::new();
    }
    let now = clock::now();
    let start = |event: &OutgoingEvent| {
        let parent = TraceParent::from_metadata(&event.metadata);
        let parent = parent.filter(|parent| parent.is_sampled())?;
        let stream = subjects.stream();
        let name = format!("publish {stream}");
        let mut span = traces.start(Some(parent), SpanKind::Producer, name, now)?;
        span.set("messaging.system", "nats");
        span.set("messaging.operation.name", "publish");
        span.set("messaging.operation.type", "send");
        span.set("messaging.destination.name", stream.to_owned());
        span.set("reading_sessions.event", short_name(&event.event_type));
        span.set(GLOBAL_POSITION, event.global_position);
        Some(span)
    };
    events.iter().filter_map(start).collect()
}

pub(super) fn end(spans: Vec<Span>, error: Option<&RelayError>) {
    if spans.is_empty() {
        return;
    }
    let now = clock::now();
    for mut span in spans {
        if let Some(error) = error {
            span.fail(error.as_str());
        }
        span.end(now);
    }
}
