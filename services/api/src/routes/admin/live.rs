//! `GET /admin/live`: the state of the service once a second, as server-sent events.
//!
//! A stream ends with its token, at a shutdown, and after [`MAX_STREAM_TIME`]; clients then
//! open the next one. All streams of a process send the snapshots of one poller.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use eventlog::clock;
use futures::stream::{self, Stream};
use prometheus_client::registry::Registry;
use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::Process;
use crate::auth::operator::Operator;
use crate::problem::Problem;

mod poller;

mod snapshot;

mod figures;

use poller::{SharedPoller, Snapshots};
use snapshot::{LiveSnapshot, SnapshotSource};

/// Shorter than the time limit of a response ([`crate::serve::ClientTimeouts::idle`]).
const MAX_STREAM_TIME: Duration = Duration::from_mins(1);

/// Streams of one process at the same time.
const MAX_STREAMS: usize = 8;

/// Proxies must not collect the events of a stream. nginx reads this header.
const NO_BUFFERING: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// The dependencies of the streams; clones share the poller and the limit of streams.
#[derive(Clone)]
pub struct LiveHandles {
    poller: SharedPoller,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
}

impl LiveHandles {
    /// `pool` must not be the pool of actions, because a snapshot may be slow.
    #[must_use]
    pub fn new(
        pool: PgPool,
        process: &Process,
        registry: Arc<Registry>,
        stop: CancellationToken,
    ) -> Self {
        let source = SnapshotSource {
            pool,
            process: Arc::clone(&process.name),
            registry,
        };
        Self {
            poller: SharedPoller::new(source),
            permits: Arc::new(Semaphore::new(MAX_STREAMS)),
            stop,
        }
    }
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
    let stream = LiveStream {
        snapshots: handles.poller.subscribe(),
        stop: handles.stop,
        ends_at: Instant::now() + left.min(MAX_STREAM_TIME),
        _permit: permit,
    };
    Ok(([NO_BUFFERING], Sse::new(stream.events())).into_response())
}

struct LiveStream {
    snapshots: Snapshots,
    stop: CancellationToken,
    ends_at: Instant,
    _permit: OwnedSemaphorePermit,
}

impl LiveStream {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        stream::unfold(self, async |mut live| {
            let snapshot = tokio::select! {
                () = live.stop.cancelled() => return None,
                () = tokio::time::sleep_until(live.ends_at) => return None,
                snapshot = live.snapshots.next() => snapshot?,
            };
            let event = Event::default().event("snapshot").data(&*snapshot);
            Some((Ok(event), live))
        })
    }
}
