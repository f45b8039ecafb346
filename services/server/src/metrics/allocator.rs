//! Memory of the process as jemalloc counts it.
//!
//! Only the executable uses jemalloc. In a test that runs the service in its own process,
//! the gauges show an allocator without allocations.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tikv_jemalloc_ctl::{epoch, stats};

#[derive(Debug)]
pub(crate) struct AllocatorMetrics;

/// The value of the label `state`, and a statistic of jemalloc in bytes.
type Statistic = (&'static str, fn() -> tikv_jemalloc_ctl::Result<usize>);

const STATISTICS: [Statistic; 6] = [
    ("allocated", stats::allocated::read),
    ("active", stats::active::read),
    ("resident", stats::resident::read),
    ("mapped", stats::mapped::read),
    ("retained", stats::retained::read),
    ("metadata", stats::metadata::read),
];

impl AllocatorMetrics {
    pub(crate) fn register(registry: &mut Registry) {
        registry.register_collector(Box::new(Self));
    }
}

impl Collector for AllocatorMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // jemalloc updates its statistics only then.
        if epoch::advance().is_err() {
            return Ok(());
        }
        let mut gauges = encoder.encode_descriptor(
            "reading_sessions_allocator_bytes",
            "Memory of the allocator in bytes, by state",
            None,
            MetricType::Gauge,
        )?;
        for (state, read) in STATISTICS {
            if let Ok(bytes) = read() {
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                ConstGauge::new(bytes).encode(gauges.encode_family(&[("state", state)])?)?;
            }
        }
        Ok(())
    }
}
