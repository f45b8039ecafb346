//! Metrics of failures: those that the roles of this process report, and losses of the
//! log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use eventlog::health::HealthRegistry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Exports the failures of a registry, which `/readyz` returns too.
#[derive(Debug)]
pub struct HealthMetrics(HealthRegistry);

impl HealthMetrics {
    pub fn register(registry: &mut Registry, failures: HealthRegistry) {
        registry.register_collector(Box::new(Self(failures)));
    }
}

impl Collector for HealthMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // Several workers can report the same failure.
        let mut failures: BTreeMap<&str, i64> = BTreeMap::new();
        for (failure, reason) in self.0.failures() {
            *failures.entry(failure.as_str()).or_default() |= i64::from(reason.is_some());
        }
        let mut gauges = encoder.encode_descriptor(
            "reading_sessions_failure",
            "1 while a role of this process reports the failure, see /readyz; otherwise 0",
            None,
            MetricType::Gauge,
        )?;
        for (name, value) in failures {
            let labels = [("name", name)];
            ConstGauge::new(value).encode(gauges.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Exports how often the log had lost events that this process remembered.
#[derive(Debug)]
pub struct LossMetrics(Arc<AtomicU64>);

impl LossMetrics {
    pub fn register(registry: &mut Registry, losses: Arc<AtomicU64>) {
        registry.register_collector(Box::new(Self(losses)));
    }
}

impl Collector for LossMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let counter = encoder.encode_descriptor(
            "reading_sessions_log_losses",
            "Times that this process found committed events missing from the log",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.0.load(Ordering::Relaxed)).encode(counter)
    }
}
