//! Metrics of how far the relay and the projections are behind the log.
//!
//! The relay of this process reports its own status. The status of all
//! projections is polled from Postgres, whichever process runs their workers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eventlog::deadline::with_deadline;
use messaging::relay::{self, RelayStatus};
use projections::status::{self, ProjectionStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Also the deadline of a poll.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// An older status is not exported: an absent metric is better than a stale one.
const MAX_AGE: Duration = Duration::from_secs(15);

/// The gauges of this process's relay.
pub struct RelayGauges {
    pool: PgPool,
    status: watch::Receiver<RelayStatus>,
    unpublished: UnpublishedAge,
}

impl RelayGauges {
    /// `pool` is for polls of the log.
    #[must_use]
    pub fn new(
        registry: &mut Registry,
        pool: PgPool,
        status: watch::Receiver<RelayStatus>,
    ) -> Self {
        registry.register_collector(Box::new(RelayProgress(status.clone())));
        let unpublished = UnpublishedAge::default();
        registry.register_collector(Box::new(unpublished.clone()));
        Self {
            pool,
            status,
            unpublished,
        }
    }

    /// Polls the log until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.poll() => {}
        }
    }

    /// Also while NATS is unavailable and no relay leads: then this age grows.
    async fn poll(self) {
        let mut status = self.status;
        loop {
            let published = status.borrow_and_update().published;
            let age = match published {
                Some(published) => {
                    let oldest = relay::oldest_unpublished(&self.pool, published);
                    let oldest = with_deadline(POLL_INTERVAL, oldest).await;
                    oldest.ok().map(Option::unwrap_or_default)
                }
                None => None,
            };
            self.unpublished.set(age);
            if published.is_some() {
                tokio::time::sleep(POLL_INTERVAL).await;
            } else {
                // Until the relay begins to lead. It ends only at shutdown.
                let changed = tokio::time::timeout(POLL_INTERVAL, status.changed());
                if let Ok(Err(_)) = changed.await {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Whether this relay leads, and its global position unless that is unknown: 0 would be the
/// whole log behind.
#[derive(Debug)]
struct RelayProgress(watch::Receiver<RelayStatus>);

impl Collector for RelayProgress {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = *self.0.borrow();
        let leads = encoder.encode_descriptor(
            "reading_sessions_relay_leads",
            "1 if the relay of this process publishes; 0 if another process leads or none can",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(status.is_leader)).encode(leads)?;
        let Some(published) = status.published else {
            return Ok(());
        };
        let position = encoder.encode_descriptor(
            "reading_sessions_relay_position",
            "Global position up to which the relay of this process has published",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(published).encode(position)
    }
}

/// The age of the oldest event that is not published; `None` if this relay does not know
/// the end of the stream, or Postgres is unavailable.
#[derive(Clone, Debug, Default)]
struct UnpublishedAge(Arc<Mutex<Option<Duration>>>);

impl UnpublishedAge {
    fn set(&self, age: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = age;
    }
}

impl Collector for UnpublishedAge {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(age) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        let gauge = encoder.encode_descriptor(
            "reading_sessions_relay_unpublished_age_seconds",
            "Age of the oldest event that is not published, in seconds; 0 if all are",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(age.as_secs_f64()).encode(gauge)
    }
}

/// The gauges of all projections.
pub struct ProjectionGauges(LatestStatus);

/// The result of the last poll; `None` before the first one.
#[derive(Clone, Debug, Default)]
struct LatestStatus(Arc<Mutex<Option<Snapshot>>>);

#[derive(Debug)]
struct Snapshot {
    taken_at: Instant,
    projections: Vec<ProjectionStatus>,
}

impl ProjectionGauges {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let latest = LatestStatus::default();
        registry.register_collector(Box::new(latest.clone()));
        Self(latest)
    }

    /// Polls the status of all projections until `stop`.
    pub async fn poll(self, pool: PgPool, stop: CancellationToken) {
        let Self(latest) = self;
        while !stop.is_cancelled() {
            match with_deadline(POLL_INTERVAL, status::list(&pool)).await {
                Ok(projections) => latest.set(projections),
                Err(error) => {
                    tracing::debug!(%error, "reading the status of projections failed: {error}");
                }
            }
            let _ = tokio::time::timeout(POLL_INTERVAL, stop.cancelled()).await;
        }
    }
}

impl LatestStatus {
    fn set(&self, projections: Vec<ProjectionStatus>) {
        let taken_at = Instant::now();
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = Some(Snapshot {
            taken_at,
            projections,
        });
    }
}

/// The name, the help and the value of a gauge with the label `projection`.
type GaugeSpec = (&'static str, &'static str, fn(&ProjectionStatus) -> f64);

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
const GAUGES: [GaugeSpec; 6] = [
    (
        "reading_sessions_projection_position",
        "Global position up to which the projection has applied the log",
        |status| status.global_position as f64,
    ),
    (
        "reading_sessions_projection_lag_events",
        "Events that the projection has not applied yet, at most 100000",
        |status| status.lag_events as f64,
    ),
    (
        "reading_sessions_projection_lag_seconds",
        "How long the first event that is not applied yet has waited, in seconds",
        |status| status.lag_seconds,
    ),
    (
        "reading_sessions_projection_works",
        "1 if a worker, in any process, applies events without an error; otherwise 0",
        |status| f64::from(status.holder.is_some() && !status.failing),
    ),
    (
        "reading_sessions_projection_paused",
        "1 if an operator has paused the projection; otherwise 0",
        |status| f64::from(status.paused),
    ),
    (
        "reading_sessions_dead_letters",
        "Dead letters of the projection, parked and waiting",
        |status| status.dead_letters as f64,
    ),
];

impl Collector for LatestStatus {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |snapshot: &&Snapshot| snapshot.taken_at.elapsed() < MAX_AGE;
        let Some(Snapshot { projections, .. }) = latest.as_ref().filter(fresh) else {
            return Ok(());
        };
        if let Some(first) = projections.first() {
            let gauge = encoder.encode_descriptor(
                "reading_sessions_log_position",
                "Global position of the newest event",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(first.head).encode(gauge)?;
        }
        for (name, help, value) in GAUGES {
            let mut gauges = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for status in projections {
                let labels = [("projection", status.projection.as_str())];
                ConstGauge::new(value(status)).encode(gauges.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn position_of_the_relay_is_absent_while_it_is_unknown() {
        let (status, receiver) = watch::channel(RelayStatus::default());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(RelayProgress(receiver)));
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let has = |line: &str| text().lines().any(|other| other == line);
        assert!(has("reading_sessions_relay_leads 0"), "{}", text());
        assert!(!text().contains("relay_position"), "{}", text());
        status.send_replace(RelayStatus {
            is_leader: true,
            published: Some(77),
        });
        assert!(has("reading_sessions_relay_leads 1"), "{}", text());
        assert!(has("reading_sessions_relay_position 77"), "{}", text());
        status.send_replace(RelayStatus::default());
        assert!(!text().contains("relay_position"), "{}", text());
    }
}
