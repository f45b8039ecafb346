//! How far the relay and the projections are behind the log, as metrics. The
//! relay says where it is by itself; how the projections stand is looked up
//! every few seconds, whichever process works on them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eventlog::deadline::with_deadline;
use messaging::relay;
use projections::status::{self, Status};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;


/// How often it is looked up, and how long Postgres may take.
const LOOK: Duration = Duration::from_secs(5);

/// What was seen longer ago is not shown: it says nothing of now.
const OLD: Duration = Duration::from_secs(15);

/// How the projections stood when it was looked up last.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Option<Look>>>);

#[derive(Debug)]
struct Look {
    at: Instant,
    found: Vec<Status>,
}

/// Polls the status of the projections for the metrics.
pub struct ProjectionLag(Seen);

impl ProjectionLag {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let seen = Seen::default();
        registry.register_collector(Box::new(seen.clone()));
        Self(seen)
    }

    /// Polls until `stop`.
    pub async fn run(self, pool: PgPool, stop: CancellationToken) {
        let Self(seen) = self;
        while !stop.is_cancelled() {
            match with_deadline(LOOK, status::list(&pool)).await {
                Ok(found) => {
                    let at = Instant::now();
                    *seen.0.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(Look { at, found });
                }
                Err(error) => tracing::debug!(%error, "reading projection status failed"),
            }
            let _ = tokio::time::timeout(LOOK, stop.cancelled()).await;
        }
    }
}

/// The gauges of this process's relay.
pub struct RelayGauges {
    leads: Gauge,
    position: Gauge,
}

impl RelayGauges {
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let leads = Gauge::default();
        registry.register(
            "reading_sessions_relay_leads",
            "Whether the relay of this process publishes: 1, or 0 when another does, or none can",
            leads.clone(),
        );
        let position = Gauge::default();
        registry.register(
            "reading_sessions_relay_position",
            "The global position up to which the relay of this process has published",
            position.clone(),
        );
        Self { leads, position }
    }
}

/// Copies the status of this process's relay to its gauges, until `stop`.
pub async fn relay(
    mut status: watch::Receiver<relay::RelayStatus>,
    gauges: RelayGauges,
    stop: CancellationToken,
) {
    let follow = async {
        loop {
            let now = *status.borrow_and_update();
            gauges.leads.set(now.is_leader.into());
            gauges.position.set(now.global_position);
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow => {}
    }
}

/// A gauge of a projection.
type Figure = (&'static str, &'static str, fn(&Status) -> f64);

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
const FIGURES: [Figure; 6] = [
    (
        "reading_sessions_projection_position",
        "The global position up to which a projection has applied the log",
        |projection| projection.position as f64,
    ),
    (
        "reading_sessions_projection_lag_events",
        "Events that a projection has yet to apply, 100000 at most",
        |projection| projection.lag_events as f64,
    ),
    (
        "reading_sessions_projection_lag_seconds",
        "Since when the first of them waits",
        |projection| projection.lag_seconds,
    ),
    (
        "reading_sessions_projection_works",
        "Whether a worker applies events, in whichever process, and does not fail: 1 or 0",
        |projection| f64::from(projection.holder.is_some() && !projection.failing),
    ),
    (
        "reading_sessions_projection_paused",
        "Whether an operator holds a projection: 1 or 0",
        |projection| f64::from(projection.paused),
    ),
    (
        "reading_sessions_dead_letters",
        "Events that a projection could not apply, and those that wait for them",
        |projection| projection.dead_letters as f64,
    ),
];

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(look) = seen.as_ref().filter(|look| look.at.elapsed() < OLD) else {
            return Ok(());
        };
        if let Some(first) = look.found.first() {
            let head = encoder.encode_descriptor(
                "reading_sessions_log_position",
                "The global position of the newest event",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(first.head).encode(head)?;
        }
        for (name, help, figure) in FIGURES {
            let mut gauges = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for projection in &look.found {
                let labels = [("projection", projection.projection.as_str())];
                ConstGauge::new(figure(projection)).encode(gauges.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
