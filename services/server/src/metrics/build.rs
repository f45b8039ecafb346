//! What this process is: its version and its roles. Alerts count processes by role, because
//! the target of a stopped process disappears from Prometheus where DNS finds the targets.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::config::Role;

#[derive(Debug)]
pub(crate) struct BuildMetrics {
    roles: Vec<Role>,
}

impl BuildMetrics {
    pub(crate) fn register(registry: &mut Registry, roles: &[Role]) {
        registry.register_collector(Box::new(Self {
            roles: roles.to_vec(),
        }));
    }
}

impl Collector for BuildMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut build = encoder.encode_descriptor(
            "reading_sessions_build_info",
            "The version of this process",
            None,
            MetricType::Gauge,
        )?;
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        ConstGauge::new(1_i64).encode(build.encode_family(&labels)?)?;
        let mut roles = encoder.encode_descriptor(
            "reading_sessions_role",
            "1 for each role of this process",
            None,
            MetricType::Gauge,
        )?;
        for role in &self.roles {
            let labels = [("role", role.as_str())];
            ConstGauge::new(1_i64).encode(roles.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
