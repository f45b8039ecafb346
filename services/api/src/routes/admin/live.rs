//! `GET /admin/live`: the state of the service once a second, as server-sent events.
//!
//! A stream ends with its token, at a shutdown, and after [`MAX_STREAM_TIME`]; clients then
//! open the next one. Each stream reads Postgres by itself, so their number is bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use domain::Timestamp;
use eventlog::error::error_chain;
use eventlog::{LogError, clock, read};
use futures::stream::{self, Stream};
use jobs::store;
use projections::status;
use prometheus_client::registry::Registry;
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::audit::{AuditEntryResponse, AuditPage};
use super::jobs::JobResponse;
use super::projections::ProjectionResponse;
use crate::auth::operator::Operator;
use crate::problem::Problem;

mod figures;

use figures::ProcessFigures;

const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// Shorter than the time limit of a response ([`crate::serve::ClientTimeouts::idle`]).
const MAX_STREAM_TIME: Duration = Duration::from_mins(1);

/// Streams of one process at the same time.
const MAX_STREAMS: usize = 8;

/// How long a snapshot may take. The stream then reports that Postgres is unavailable.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

/// The newest entries of the audit in a snapshot.
const RECENT_ACTIONS: i64 = 10;

/// Proxies must not collect the events of a stream. nginx reads this header.
const NO_BUFFERING: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// The dependencies of the streams; clones share the limit of streams.
#[derive(Clone)]
pub struct LiveHandles {
    pool: PgPool,
    registry: Arc<Registry>,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
}

/// The state of the service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Live)]
pub struct LiveSnapshot {
    #[schema(value_type = DateTime)]
    at: Timestamp,
    /// The process that sends the stream.
    process: ProcessFigures,
    /// What Postgres contains. Null if it cannot be read.
    #[schema(required)]
    log: Option<LogSnapshot>,
    /// Why Postgres cannot be read. Null if it can.
    #[schema(required)]
    error: Option<String>,
}

/// The state of the log and of the work on it, by all processes.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogSnapshot {
    /// The global position of the newest event.
    head: i64,
    projections: Vec<ProjectionResponse>,
    jobs: Vec<JobResponse>,
    /// The newest entries of the audit. Null if this process may not read the audit.
    #[schema(required)]
    actions: Option<Vec<AuditEntryResponse>>,
}

impl LiveHandles {
    #[must_use]
    pub fn new(pool: PgPool, registry: Arc<Registry>, stop: CancellationToken) -> Self {
        Self {
            pool,
            registry,
            permits: Arc::new(Semaphore::new(MAX_STREAMS)),
            stop,
        }
    }

    async fn snapshot(&self) -> LiveSnapshot {
        let log = tokio::time::timeout(SNAPSHOT_TIMEOUT, log(&self.pool)).await;
        let (log, error) = match log {
            Ok(Ok(log)) => (Some(log), None),
            Ok(Err(error)) => {
                tracing::debug!(error = error_chain(&error), "reading a snapshot failed");
                (None, Some("Postgres cannot be read"))
            }
            Err(_) => (None, Some("Postgres does not respond")),
        };
        LiveSnapshot {
            at: clock::now(),
            process: ProcessFigures::from_registry(&self.registry),
            log,
            error: error.map(str::to_owned),
        }
    }
}

async fn log(pool: &PgPool) -> Result<LogSnapshot, LogError> {
    let projections = status::list(pool).await?;
    let jobs = store::list(pool).await?;
    Ok(LogSnapshot {
        head: read::head(pool).await?,
        projections: projections
            .into_iter()
            .map(ProjectionResponse::from)
            .collect(),
        jobs: jobs.into_iter().map(JobResponse::from).collect(),
        // Any other failure affects the statements before, too.
        actions: AuditPage::load(pool, None, RECENT_ACTIONS)
            .await
            .ok()
            .map(|page| page.entries),
    })
}

/// Follow the state of the service
///
/// Returns server-sent events named `snapshot`, one a second. The stream ends when the token
/// expires, at a shutdown, and after a minute; open the next one then. A process serves at
/// most eight streams at a time, and returns 503 for more.
#[utoipa::path(
    get,
    path = "/api/v1/admin/live",
    operation_id = "live",
    tag = "processes",
    responses((
        status = 200,
        description = "The stream. The `data` of each event is a `Live`.",
        content((LiveSnapshot = "text/event-stream"))
    ))
)]
pub async fn handle(
    State(handles): State<LiveHandles>,
    operator: Operator,
) -> Result<Response, Problem> {
    let permit = Arc::clone(&handles.permits).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::overloaded())?;
    let left = operator.expires_at - clock::now();
    let left = left.to_std().unwrap_or_default();
    let mut ticks = interval(SNAPSHOT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = LiveStream {
        handles,
        ticks,
        ends_at: Instant::now() + left.min(MAX_STREAM_TIME),
        _permit: permit,
    };
    Ok(([NO_BUFFERING], Sse::new(stream.events())).into_response())
}

struct LiveStream {
    handles: LiveHandles,
    ticks: Interval,
    ends_at: Instant,
    _permit: OwnedSemaphorePermit,
}

impl LiveStream {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        stream::unfold(self, async |mut live| {
            let Self {
                handles,
                ticks,
                ends_at,
                ..
            } = &mut live;
            let next = async {
                ticks.tick().await;
                handles.snapshot().await
            };
            let snapshot = tokio::select! {
                () = handles.stop.cancelled() => return None,
                () = tokio::time::sleep_until(*ends_at) => return None,
                snapshot = next => snapshot,
            };
            let event = Event::default().event("snapshot").json_data(snapshot);
            let event = event.expect("a snapshot is plain JSON");
            Some((Ok(event), live))
        })
    }
}
