//! Metrics of connection pools: connections by state, and how long requests
//! waited for one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use eventlog::Pool;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use sqlx::PgPool;

/// Upper bounds in seconds, up to more than the default `DATABASE_POOL_TIMEOUT`.
const WAIT_BUCKETS: [f64; 12] = [
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// The pools of a process, as metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    tracked: TrackedPools,
    waits: Family<PoolLabel, Histogram>,
    timeouts: Family<PoolLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabel {
    pool: String,
}

#[derive(Clone, Debug, Default)]
struct TrackedPools(Arc<Mutex<Vec<(PoolLabel, PgPool)>>>);

impl PoolMetrics {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let tracked = TrackedPools::default();
        registry.register_collector(Box::new(tracked.clone()));
        let waits: fn() -> Histogram = || Histogram::new(WAIT_BUCKETS);
        let waits = Family::new_with_constructor(waits);
        registry.register(
            "reading_sessions_pool_wait_seconds",
            "Time that a request waited for a connection of the pool, connecting included",
            waits.clone(),
        );
        let timeouts = Family::default();
        registry.register(
            "reading_sessions_pool_timeouts",
            "Requests that got no connection of the pool in time",
            timeouts.clone(),
        );
        Self {
            tracked,
            waits,
            timeouts,
        }
    }

    /// Counts the connections of a pool that lives as long as the process.
    #[must_use]
    pub fn track(&self, pool: PgPool) -> PgPool {
        let tracked = &self.tracked.0;
        let mut tracked = tracked.lock().unwrap_or_else(PoisonError::into_inner);
        tracked.push((PoolLabel::from(&pool), pool.clone()));
        pool
    }

    /// Like [`PoolMetrics::track`], and measures the waits for a connection too.
    #[must_use]
    pub fn track_waits(&self, pool: PgPool) -> Pool {
        let label = PoolLabel::from(&pool);
        let waits = self.waits.get_or_create_owned(&label);
        let timeouts = self.timeouts.get_or_create_owned(&label);
        Pool::new(self.track(pool), move |wait, timed_out| {
            waits.observe(wait.as_secs_f64());
            timeouts.inc_by(u64::from(timed_out));
        })
    }
}

impl From<&PgPool> for PoolLabel {
    fn from(pool: &PgPool) -> Self {
        let options = pool.connect_options();
        let name = options.get_application_name().unwrap_or_default();
        let name = name.strip_prefix("reading-sessions-").unwrap_or(name);
        Self {
            pool: name.to_owned(),
        }
    }
}

impl Collector for TrackedPools {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let tracked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connections = encoder.encode_descriptor(
            "reading_sessions_pool_connections",
            "Connections of the pool to Postgres, by state",
            None,
            MetricType::Gauge,
        )?;
        for (label, pool) in tracked.iter() {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            let in_use = pool.size().saturating_sub(idle);
            for (state, count) in [("in_use", in_use), ("idle", idle)] {
                let labels = [("pool", label.pool.as_str()), ("state", state)];
                let gauge = connections.encode_family(&labels)?;
                ConstGauge::new(i64::from(count)).encode(gauge)?;
            }
        }
        let mut sizes = encoder.encode_descriptor(
            "reading_sessions_pool_max_connections",
            "Maximum number of connections of the pool",
            None,
            MetricType::Gauge,
        )?;
        for (label, pool) in tracked.iter() {
            let size = i64::from(pool.options().get_max_connections());
            ConstGauge::new(size).encode(sizes.encode_family(label)?)?;
        }
        Ok(())
    }
}
