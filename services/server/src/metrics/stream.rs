//! Metrics of the stream of events, from the relay that leads.

use std::fmt;

use messaging::relay::StreamSize;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// The gauges of the stream. A process whose relay does not lead exports none.
#[derive(Debug)]
pub struct StreamGauges(watch::Receiver<Option<StreamSize>>);

/// The name, the help and the value of a gauge.
type GaugeSpec = (&'static str, &'static str, fn(StreamSize) -> u64);

const GAUGES: [GaugeSpec; 3] = [
    (
        "reading_sessions_stream_messages",
        "Events in the stream READING",
        |size| size.messages,
    ),
    (
        "reading_sessions_stream_bytes",
        "Size of the stream READING, in bytes",
        |size| size.bytes,
    ),
    (
        "reading_sessions_stream_max_bytes",
        "Size at which the oldest events leave the stream READING, in bytes; 0 for no limit",
        |size| size.max_bytes,
    ),
];

impl StreamGauges {
    pub fn register(registry: &mut Registry, size: watch::Receiver<Option<StreamSize>>) {
        registry.register_collector(Box::new(Self(size)));
    }
}

impl Collector for StreamGauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(size) = *self.0.borrow() else {
            return Ok(());
        };
        for (name, help, value) in GAUGES {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value(size)).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        Ok(())
    }
}
