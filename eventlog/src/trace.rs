//! Spans of traces, through the API of OpenTelemetry, with explicit parents and times.
//!
//! A process without a tracer creates no span. Otherwise the tracer's sampler decides by the
//! trace, so that all spans of a trace are created, or none. This module exports nothing and
//! never waits.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use domain::Timestamp;
use opentelemetry::global::{BoxedSpan, BoxedTracer};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer,
};
use opentelemetry::{Context, KeyValue, Value};
use serde::Deserialize;

/// The attribute with the global position of an event, by which `events` and logs name it.
pub const GLOBAL_POSITION: &str = "reading_sessions.global_position";

/// The attribute with the reason of a failed span.
const ERROR_TYPE: &str = "error.type";

/// The length of a `traceparent`, in bytes.
const TRACEPARENT_LENGTH: usize = 55;

/// A W3C trace context: a trace and one of its spans
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
}

impl TraceParent {
    /// Parses the header `traceparent`. `None` if it is invalid; the specification then
    /// requires to ignore it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let separators = [2, 35, 52].map(|at| text.as_bytes().get(at));
        if text.len() != TRACEPARENT_LENGTH || separators != [Some(&b'-'); 3] {
            return None;
        }
        let version = hex(text, 0..2)?;
        let (trace_id, span_id) = (hex(text, 3..35)?, hex(text, 36..52)?);
        if version == 0xff || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(u64::try_from(span_id).ok()?),
            flags: TraceFlags::new(u8::try_from(hex(text, 53..55)?).ok()?),
        })
    }

    /// The trace context in the metadata of an event, if there is one.
    #[must_use]
    pub fn from_metadata(metadata: &str) -> Option<Self> {
        // Most events have no metadata.
        if metadata.len() < TRACEPARENT_LENGTH {
            return None;
        }
        let metadata: Metadata = serde_json::from_str(metadata).ok()?;
        Self::parse(&metadata.traceparent?)
    }

    /// Whether the trace is sampled, as far as the process knows that set it.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags.is_sampled()
    }

    /// The metadata of an event with this trace context, a JSON object.
    #[must_use]
    pub fn to_metadata(self) -> String {
        format!(r#"{{"traceparent":"{self}"}}"#)
    }

    fn span_context(self, is_remote: bool) -> SpanContext {
        let state = TraceState::NONE;
        SpanContext::new(self.trace_id, self.span_id, self.flags, is_remote, state)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        write!(f, "00-{trace_id}-{span_id}-{flags:02x}")
    }
}

/// A number of lower-case hexadecimal digits.
fn hex(text: &str, range: Range<usize>) -> Option<u128> {
    let digits = text.get(range)?;
    let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if !digits.bytes().all(is_hex) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

/// Starts spans. Clones share a tracer; the default has none.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<BoxedTracer>>);

impl Traces {
    #[must_use]
    pub fn new(tracer: BoxedTracer) -> Self {
        Self(Some(Arc::new(tracer)))
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Starts a span whose parent, if any, is in another process. `None` without a tracer,
    /// or if the trace is not sampled.
    #[must_use]
    pub fn start(
        &self,
        parent: Option<TraceParent>,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        at: Timestamp,
    ) -> Option<Span> {
        let parent = parent.map(|parent| parent.span_context(true));
        Span::start(self.0.as_ref()?, parent, kind, name, at)
    }
}

/// A sampled span as the parent of others, also after its end.
#[derive(Clone, Debug)]
pub struct ParentSpan {
    tracer: Arc<BoxedTracer>,
    traceparent: TraceParent,
}

impl ParentSpan {
    /// Starts a child. `None` if the sampler refuses it; those of OpenTelemetry never refuse
    /// a child of a sampled span.
    #[must_use]
    pub fn start(
        &self,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        at: Timestamp,
    ) -> Option<Span> {
        let parent = self.traceparent.span_context(false);
        Span::start(&self.tracer, Some(parent), kind, name, at)
    }
}

/// A sampled span. If it is dropped before its end, its operation was cancelled.
#[derive(Debug)]
pub struct Span {
    inner: BoxedSpan,
    tracer: Arc<BoxedTracer>,
    started_at: Timestamp,
}

impl Span {
    fn start(
        tracer: &Arc<BoxedTracer>,
        parent: Option<SpanContext>,
        kind: SpanKind,
        name: impl Into<Cow<'static, str>>,
        at: Timestamp,
    ) -> Option<Self> {
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        let span = tracer.build_with_context(builder.with_start_time(at), &context);
        span.is_recording().then(|| Self {
            inner: span,
            tracer: Arc::clone(tracer),
            started_at: at,
        })
    }

    /// The trace context of work that this span causes.
    #[must_use]
    pub fn traceparent(&self) -> TraceParent {
        let context = self.inner.span_context();
        TraceParent {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            flags: context.trace_flags(),
        }
    }

    #[must_use]
    pub fn as_parent(&self) -> ParentSpan {
        ParentSpan {
            tracer: Arc::clone(&self.tracer),
            traceparent: self.traceparent(),
        }
    }

    pub fn set_name(&mut self, name: String) {
        self.inner.update_name(name);
    }

    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.inner.set_attribute(KeyValue::new(key, value));
    }

    /// Marks the operation as failed. `error_type` has few values.
    pub fn fail(&mut self, error_type: impl Into<Value>) {
        self.set(ERROR_TYPE, error_type);
        self.inner.set_status(Status::error(""));
    }

    /// Ends the span. Not before its start, even if the clock was set back since.
    pub fn end(mut self, at: Timestamp) {
        self.inner
            .end_with_timestamp(at.max(self.started_at).into());
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.inner.is_recording() {
            self.fail("cancelled");
            let at = crate::clock::now().max(self.started_at);
            self.inner.end_with_timestamp(at.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn valid_traceparent_is_printed_as_it_was() {
        for text in [
            TEXT,
            &TEXT.replace("-01", "-00"),
            &TEXT.replace("-01", "-03"),
        ] {
            let parsed = TraceParent::parse(text).unwrap();
            assert_eq!(parsed.to_string(), text);
            let metadata = parsed.to_metadata();
            assert_eq!(TraceParent::from_metadata(&metadata), Some(parsed));
        }
    }

    #[test]
    fn invalid_traceparent_is_ignored() {
        let zeros = |text: &str| TEXT.replace(text, &"0".repeat(text.len()));
        for text in [
            "",
            "\" , \"x\": \"",
            &TEXT.to_uppercase(),
            &TEXT.replace("00-", "ff-"),
            &TEXT.replace("-01", "-1"),
            &TEXT.replace("-01", "-01-"),
            &TEXT.replace("0af", "+af"),
            &TEXT.replace("0af", "ä1"),
            &zeros("0af7651916cd43dd8448eb211c80319c"),
            &zeros("b7ad6b7169203331"),
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn other_metadata_contains_no_traceparent() {
        let other = format!(r#"{{"source":"{}"}}"#, "x".repeat(TRACEPARENT_LENGTH));
        for metadata in ["{}", "", "null", other.as_str(), &TEXT.repeat(2)] {
            assert_eq!(TraceParent::from_metadata(metadata), None, "{metadata}");
        }
    }

    #[test]
    fn no_span_starts_without_a_tracer() {
        let (traces, now) = (Traces::default(), crate::clock::now());
        assert!(!traces.is_on());
        let parent = TraceParent::parse(TEXT);
        assert!(traces.start(parent, SpanKind::Server, "x", now).is_none());
    }
}
