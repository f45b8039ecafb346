//! Metrics of the reads of active sessions.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The outcome of a read of Redis. The log serves every outcome but `Hit` and
/// `Stale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReadOutcome {
    Hit,
    /// Redis returned the session while Postgres was unavailable.
    Stale,
    /// Redis has no entry, or one that is older than `min_position`.
    Miss,
    RedisTimedOut,
    /// Redis returned an error or is unreachable.
    RedisFailed,
    /// The circuit breaker of Redis is open.
    RedisUnavailable,
}

/// What Redis did with the fill of a cache miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FillOutcome {
    Stored,
    /// Redis has a newer entry.
    Outdated,
    /// Redis rejected the fill because it arrived too long after its miss.
    TooLate,
    Failed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReadLabels {
    result: ReadOutcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FillLabels {
    result: FillOutcome,
}

#[derive(Debug)]
pub(super) struct ActiveReadMetrics {
    reads: Family<ReadLabels, Counter>,
    fills: Family<FillLabels, Counter>,
    joined: Counter,
}

impl ActiveReadMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let reads = Family::default();
        registry.register(
            "reading_sessions_active_reads",
            "Reads of active sessions, by result; the log serves all but hit and stale",
            reads.clone(),
        );
        let fills = Family::default();
        registry.register(
            "reading_sessions_cache_fills",
            "Fills of cache misses in Redis, by result",
            fills.clone(),
        );
        let joined = Counter::default();
        registry.register(
            "reading_sessions_active_reads_joined",
            "Reads that shared a concurrent read of the log for the same reader",
            joined.clone(),
        );
        Self {
            reads,
            fills,
            joined,
        }
    }

    pub(super) fn record_read(&self, result: ReadOutcome) {
        self.reads.get_or_create(&ReadLabels { result }).inc();
    }

    pub(super) fn record_fill(&self, result: FillOutcome) {
        self.fills.get_or_create(&FillLabels { result }).inc();
    }

    pub(super) fn record_joined(&self) {
        self.joined.inc();
    }
}

impl EncodeLabelValue for ReadOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let result = match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::RedisTimedOut => "redis_late",
            Self::RedisFailed => "redis_failed",
            Self::RedisUnavailable => "redis_away",
        };
        EncodeLabelValue::encode(&result, encoder)
    }
}

impl EncodeLabelValue for FillOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let result = match self {
            Self::Stored => "taken",
            Self::Outdated => "older",
            Self::TooLate => "late",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&result, encoder)
    }
}
