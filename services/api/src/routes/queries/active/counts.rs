//! What is counted of active sessions' reads.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use prometheus_client::registry::Registry;

/// By what a read was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answered {
    /// Redis knew.
    Hit,
    /// Redis knew, and Postgres was away.
    Stale,
    /// Redis did not know, or was not as far as the client asked for.
    Miss,
    /// Redis did not answer in time.
    RedisLate,
    /// Redis refused, or could not be reached.
    RedisFailed,
    /// Redis was not asked, since it did not answer before.
    RedisAway,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fill {
    /// Redis took it.
    Taken,
    /// Redis has something newer.
    Older,
    /// It came too long after its miss.
    Late,
    /// Redis did not answer.
    Failed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct By {
    result: Answered,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct How {
    result: Fill,
}

#[derive(Debug)]
pub(super) struct Counts {
    reads: Family<By, Counter>,
    fills: Family<How, Counter>,
    joined: Counter,
}

impl Counts {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let reads = Family::default();
        registry.register("reading_sessions_active_reads", "Reads of active sessions; the log answers all but hit and stale", reads.clone());
        let fills = Family::default();
        registry.register("reading_sessions_cache_fills", "What reads of the log filled into Redis, and what it did not take", fills.clone());
        let joined = Counter::default();
        registry.register("reading_sessions_active_reads_joined", "Reads that waited for another one of the same reader", joined.clone());
        Self {
            reads,
            fills,
            joined,
        }
    }

    pub(super) fn answered(&self, result: Answered) {
        self.reads.get_or_create(&By { result }).inc();
    }

    pub(super) fn filled(&self, result: Fill) {
        self.fills.get_or_create(&How { result }).inc();
    }

    pub(super) fn joined(&self) {
        self.joined.inc();
    }
}

impl EncodeLabelValue for Answered {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let result = match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::RedisLate => "redis_late",
            Self::RedisFailed => "redis_failed",
            Self::RedisAway => "redis_away",
        };
        EncodeLabelValue::encode(&result, encoder)
    }
}

impl EncodeLabelValue for Fill {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let result = match self {
            Self::Taken => "taken",
            Self::Older => "older",
            Self::Late => "late",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&result, encoder)
    }
}
