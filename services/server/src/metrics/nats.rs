//! The connection of this process to NATS.

use std::fmt;
use std::sync::atomic::Ordering;

use async_nats::Client;
use async_nats::connection::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

pub(crate) struct NatsMetrics(Client);

impl fmt::Debug for NatsMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsMetrics").finish_non_exhaustive()
    }
}

impl NatsMetrics {
    pub(crate) fn register(registry: &mut Registry, client: Client) {
        registry.register_collector(Box::new(Self(client)));
    }
}

impl Collector for NatsMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let connected = encoder.encode_descriptor(
            "reading_sessions_nats_connected",
            "1 while this process is connected to NATS; otherwise 0",
            None,
            MetricType::Gauge,
        )?;
        let is_connected = self.0.connection_state() == State::Connected;
        ConstGauge::new(i64::from(is_connected)).encode(connected)?;
        let reconnects = encoder.encode_descriptor(
            "reading_sessions_nats_reconnects",
            "Times that this process connected to NATS again",
            None,
            MetricType::Counter,
        )?;
        let connects = self.0.statistics().connects.load(Ordering::Relaxed);
        ConstCounter::new(connects.saturating_sub(1)).encode(reconnects)
    }
}
