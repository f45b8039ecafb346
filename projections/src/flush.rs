//! Requests to a projection's worker to write the rows of a reader before their window ends.
//!
//! A query that reads its own writes sends a request over core NATS, and the worker responds
//! once the rows are written. The request or the response may be lost: the query repeats the
//! request. If no worker can be reached, the query closes the window of the projection in
//! Postgres for some seconds. The worker reads that within a second and then writes all rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::RequestErrorKind;
use async_nats::connection::State;
use domain::ReaderId;
use eventlog::Pool;
use futures::StreamExt;
use messaging::Subjects;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::worker::{ControlHandle, FlushRequest};

/// How long a worker keeps a request. Queries do not wait longer.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);

/// How long a query waits for a response before it repeats the request. A worker that is
/// behind responds when it has folded the events.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a query waits for a worker before it closes the window. At once if no worker can
/// be reached.
const CLOSE_AFTER: Duration = Duration::from_secs(2);

/// The pause before a request is repeated.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// How long a window stays closed. Longer than a worker needs to notice it.
const CLOSED_FOR: Duration = Duration::from_secs(3);

/// The pause after a failed subscription.
const SUBSCRIBE_DELAY: Duration = Duration::from_millis(500);

#[derive(Debug, Serialize, Deserialize)]
struct Message {
    reader_id: ReaderId,
    global_position: i64,
}

/// Requests that workers write rows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FlushClient {
    nats: async_nats::Client,
    subjects: Arc<Subjects>,
}

impl FlushClient {
    #[must_use]
    pub fn new(nats: async_nats::Client, subjects: Subjects) -> Self {
        Self {
            nats,
            subjects: Arc::new(subjects),
        }
    }

    /// Waits until the worker of a projection has written the events of a reader up to a
    /// global position. Never returns if no worker responds.
    pub(crate) async fn flush(
        &self,
        pool: &Pool,
        projection: &'static str,
        reader_id: ReaderId,
        global_position: i64,
    ) {
        let message = Message {
            reader_id,
            global_position,
        };
        let payload = serde_json::to_vec(&message).expect("a message is plain JSON");
        let began = Instant::now();
        loop {
            let is_reachable = match self.request(projection, &payload).await {
                Response::Written => return,
                Response::None => true,
                Response::Unreachable => false,
            };
            if (!is_reachable || began.elapsed() >= CLOSE_AFTER)
                && let Err(error) = close_window(pool, projection, CLOSED_FOR).await
            {
                tracing::debug!(
                    %error,
                    projection,
                    "closing the coalesce window failed: {error}; the query waits until it ends"
                );
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn request(&self, projection: &str, payload: &[u8]) -> Response {
        // The client queues requests while it is disconnected, and waits without a limit once
        // its queue is full.
        if self.nats.connection_state() != State::Connected {
            return Response::Unreachable;
        }
        // An inbox of its own: the client forgets that of a request without a response. It
        // would keep an entry in the inbox that requests share.
        let request = async_nats::Request::new()
            .payload(payload.to_vec().into())
            .inbox(self.nats.new_inbox());
        let subject = self.subjects.flush(projection);
        let response = self.nats.send_request(subject, request);
        match tokio::time::timeout(RESPONSE_TIMEOUT, response).await {
            Ok(Ok(_)) => Response::Written,
            Ok(Err(error)) if error.kind() == RequestErrorKind::TimedOut => Response::None,
            Ok(Err(_)) => Response::Unreachable,
            Err(_) => Response::None,
        }
    }
}

/// The response to a request.
enum Response {
    Written,
    /// No worker has responded in time.
    None,
    /// NATS is unavailable, or no process with the role `projections` is connected.
    Unreachable,
}

/// Makes the worker of a projection write every row at once, for a time. It notices this when
/// it renews its lease. Many callers change the row once in half of the time, and none shortens
/// the time of another.
pub(crate) async fn close_window(
    pool: &Pool,
    projection: &str,
    duration: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update projections
        set window_closed_until = clock_timestamp() + $2::float8 * interval '1 s'
        where projection = $1
            and coalesce(
                window_closed_until < clock_timestamp() + $2::float8 / 2 * interval '1 s', true
            )",
        projection,
        duration.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Passes requests to the workers of this process, until `shutdown`. A worker without its
/// lease ignores them.
pub(crate) async fn serve(
    nats: async_nats::Client,
    subjects: Subjects,
    workers: Vec<(&'static str, ControlHandle)>,
    shutdown: CancellationToken,
) {
    let serve = async {
        loop {
            let error = match receive(&nats, &subjects, &workers).await {
                Ok(()) => "the subscription ended".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::debug!(
                error,
                "receiving flush requests failed: {error}; it is repeated"
            );
            tokio::time::sleep(SUBSCRIBE_DELAY).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = serve => {}
    }
}

async fn receive(
    nats: &async_nats::Client,
    subjects: &Subjects,
    workers: &[(&'static str, ControlHandle)],
) -> Result<(), async_nats::SubscribeError> {
    let mut messages = nats.subscribe(subjects.flush("*")).await?;
    while let Some(message) = messages.next().await {
        let worker = workers
            .iter()
            .find(|(projection, _)| message.subject.as_str() == subjects.flush(projection));
        let (Some((_, worker)), Some(reply)) = (worker, message.reply) else {
            continue;
        };
        let Ok(wanted) = serde_json::from_slice::<Message>(&message.payload) else {
            continue;
        };
        let (done, written) = oneshot::channel();
        let request = FlushRequest {
            reader_id: wanted.reader_id,
            global_position: wanted.global_position,
            received_at: Instant::now(),
            done,
        };
        // A full queue drops the request, and the query repeats it.
        if worker.requests.try_send(request).is_ok() {
            let nats = nats.clone();
            tokio::spawn(async move {
                if written.await.is_ok() {
                    let _ = nats.publish(reply, "".into()).await;
                }
            });
        }
    }
    Ok(())
}
