//! What a service counts, for Prometheus. Each part makes its own counters and
//! registers them here; `/metrics` on the operators' listener shows all of them.
//! No label names a reader, a session or a book.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::registry::{Metric, Registry};

/// The content type of [`Metrics::text`] (`OpenMetrics` 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that a service counts; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// Shows a metric from now on, and returns it. `name` is without the
    /// `_total` of a counter, `help` without a full stop.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(name, help, metric.clone());
        metric
    }

    /// Shows from now on what a collector finds whenever it is asked.
    pub fn collect(&self, collector: impl Collector) {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(collector));
    }

    /// All metrics as they are now.
    #[must_use]
    pub fn text(&self) -> String {
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a string takes all that is written");
        text
    }
}
