//! How the pools of a process are used, as metrics: connections there are, and
//! how long requests waited for one.

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
use sqlx::PgPool;

use prometheus_client::registry::Registry;

/// Upper bounds of the waits told apart, in seconds: from none to more than a
/// pool lets anyone wait.
const WAITS: [f64; 12] = [
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// What is shown of pools; cheap to clone.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    shown: Shown,
    waits: Family<Name, Histogram>,
    timeouts: Family<Name, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Name {
    pool: String,
}

#[derive(Clone, Debug, Default)]
struct Shown(Arc<Mutex<Vec<(Name, PgPool)>>>);

impl PoolMetrics {
    /// Of no pool yet.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let shown = Shown::default();
        registry.register_collector(Box::new(shown.clone()));
        let waits: fn() -> Histogram = || Histogram::new(WAITS);
        let waits = Family::new_with_constructor(waits);
        registry.register("reading_sessions_pool_wait_seconds", "Time that a request waited for a connection of a pool, connecting included", waits.clone());
        let timeouts = Family::default();
        registry.register("reading_sessions_pool_timeouts", "Requests that got no connection of a pool in time", timeouts.clone());
        Self {
            shown,
            waits,
            timeouts,
        }
    }

    /// Shows the connections of a pool, which lives as long as the process.
    #[must_use]
    pub fn show(&self, pool: PgPool) -> PgPool {
        let mut shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.push((Name::of(&pool), pool.clone()));
        pool
    }

    /// As [`PoolMetrics::show`], with the waits for them.
    #[must_use]
    pub fn time(&self, pool: PgPool) -> Pool {
        let name = Name::of(&pool);
        let waits = self.waits.get_or_create_owned(&name);
        let timeouts = self.timeouts.get_or_create_owned(&name);
        Pool::new(self.show(pool), move |wait, timed_out| {
            waits.observe(wait.as_secs_f64());
            timeouts.inc_by(u64::from(timed_out));
        })
    }
}

impl Name {
    fn of(pool: &PgPool) -> Self {
        let options = pool.connect_options();
        let name = options.get_application_name().unwrap_or_default();
        let name = name.strip_prefix("reading-sessions-").unwrap_or(name);
        Self {
            pool: name.to_owned(),
        }
    }
}

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connections = encoder.encode_descriptor(
            "reading_sessions_pool_connections",
            "Connections of a pool to Postgres",
            None,
            MetricType::Gauge,
        )?;
        for (Name { pool: name }, pool) in shown.iter() {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            let in_use = pool.size().saturating_sub(idle);
            for (state, count) in [("in_use", in_use), ("idle", idle)] {
                let labels = [("pool", name.as_str()), ("state", state)];
                let gauge = connections.encode_family(&labels)?;
                ConstGauge::new(i64::from(count)).encode(gauge)?;
            }
        }
        let mut most = encoder.encode_descriptor(
            "reading_sessions_pool_max_connections",
            "Connections of a pool to Postgres at most",
            None,
            MetricType::Gauge,
        )?;
        for (name, pool) in shown.iter() {
            let gauge = most.encode_family(name)?;
            ConstGauge::new(i64::from(pool.options().get_max_connections())).encode(gauge)?;
        }
        Ok(())
    }
}
