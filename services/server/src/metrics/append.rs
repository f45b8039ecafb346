//! How long the appends of this process take, and how many events they write together.

use eventlog::AppendedBatch;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds, up to the deadline of an append.
const DURATION_BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 7.0,
];

/// Upper bounds in events, up to the limit of a batch.
const EVENT_BUCKETS: [f64; 10] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 2_000.0, 8_192.0,
];

/// Clones share their histograms.
#[derive(Clone, Debug)]
pub(crate) struct AppendMetrics {
    durations: Histogram,
    events: Histogram,
}

impl AppendMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let durations = Histogram::new(DURATION_BUCKETS);
        registry.register(
            "reading_sessions_append_duration_seconds",
            "Time from sending a batch of events to Postgres until it is committed or refused",
            durations.clone(),
        );
        let events = Histogram::new(EVENT_BUCKETS);
        registry.register(
            "reading_sessions_append_batch_events",
            "Events in a batch that was sent to Postgres",
            events.clone(),
        );
        Self { durations, events }
    }

    pub(crate) fn record(&self, batch: AppendedBatch) {
        self.durations.observe(batch.duration.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        self.events.observe(batch.events as f64);
    }
}
