//! How long the queries of read tables and of the log take.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds. A query above 0.1 counts as slow.
const BUCKETS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueryName {
    /// A reader's active session in the log, after a cache miss.
    Active,
    Daily,
    History,
    Patterns,
    Streak,
    Weekly,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueryLabels {
    query: QueryName,
}

/// Clones share their histograms.
#[derive(Clone, Debug)]
pub struct QueryMetrics {
    durations: Family<QueryLabels, Histogram>,
}

impl QueryMetrics {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let buckets: fn() -> Histogram = || Histogram::new(BUCKETS);
        let durations = Family::new_with_constructor(buckets);
        registry.register(
            "reading_sessions_query_duration_seconds",
            "Time of a query in Postgres with the wait for a connection, by query",
            durations.clone(),
        );
        Self { durations }
    }

    pub(super) fn record(&self, query: QueryName, duration: Duration) {
        self.durations
            .get_or_create(&QueryLabels { query })
            .observe(duration.as_secs_f64());
    }
}

impl EncodeLabelValue for QueryName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Active => "active",
            Self::Daily => "daily",
            Self::History => "history",
            Self::Patterns => "patterns",
            Self::Streak => "streak",
            Self::Weekly => "weekly",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}
