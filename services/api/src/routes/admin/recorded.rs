//! Records every admin request that may change something in the audit: an entry before
//! the handler, and its outcome afterwards. A route needs nothing for that, so none can be
//! without it.
//!
//! The request runs in a task of its own: an operator who disconnects stops neither the
//! action nor its entry. A shutdown waits for both.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use eventlog::audit::{self, Action, NewEntry, Origin};
use eventlog::error::error_chain;
use futures::FutureExt;
use futures::future::BoxFuture;
use projections::dead_letters::DeadLetterId;
use serde_json::{Map, Value};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::PATH;
use crate::auth::operator::Operator;
use crate::middleware::{InnerService, Middleware, Next};
use crate::problem::Problem;
use crate::request_log::catch_panic;

mod entry;

pub use entry::RecordedAction;

/// The parameters that an entry contains. Others may be anything.
const DETAILS: [&str; 2] = ["restart", "format"];

/// The longest value of such a parameter, in bytes. The valid ones are shorter.
const MAX_DETAIL_LENGTH: usize = 16;

/// How long an action may wait for its entry. Shorter than the deadline of a request.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The error of an action that its process ended, or of an export without its client.
const INTERRUPTED: &str =
    "interrupted: the process stopped, or the client did not read the whole response";

/// How long a shutdown waits for requests whose clients have disconnected.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The action of a route; `None` for routes that do not exist.
fn action(method: &Method, path: &str) -> Option<Action> {
    Some(match (method.as_str(), path) {
        ("POST", "/projections/{name}/pause") => Action::Pause,
        ("POST", "/projections/{name}/resume") => Action::Resume,
        ("POST", "/projections/{name}/replay") => Action::Replay,
        ("POST", "/projections/{name}/verify") => Action::Verify,
        ("POST", "/dead-letters/{id}/retry") => Action::Retry,
        ("POST", "/dead-letters/{id}/discard") => Action::Discard,
        ("POST", "/jobs/{name}/run") => Action::RunJob,
        ("POST", "/cache/warmup") => Action::WarmUp,
        ("POST", "/reading-sessions/cleanup") => Action::Cleanup,
        ("POST", "/readers/{id}/export") => Action::ExportReader,
        ("DELETE", "/readers/{id}") => Action::EraseReader,
        _ => return None,
    })
}

/// The target as the service spells it. A UUID has several spellings.
fn target(action: Option<Action>, given: &str) -> String {
    let canonical = match action {
        Some(Action::ExportReader | Action::EraseReader) => {
            Uuid::try_parse(given).ok().map(|id| id.to_string())
        }
        Some(Action::Retry | Action::Discard) => {
            let id = given.parse::<DeadLetterId>();
            id.ok().map(|id| id.to_string())
        }
        _ => None,
    };
    canonical.unwrap_or_else(|| given.to_owned())
}

/// The layer below admission. Clones share their entries.
#[derive(Clone)]
pub struct RecordActions {
    pool: PgPool,
    /// The ids of the entries without an outcome.
    open: Arc<Mutex<BTreeSet<i64>>>,
    /// The requests, and the writes of outcomes.
    tasks: TaskTracker,
    /// Ends the requests that a shutdown no longer waits for.
    cut_off: CancellationToken,
}

impl RecordActions {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self {
            pool,
            open: Arc::default(),
            tasks: TaskTracker::new(),
            cut_off: CancellationToken::new(),
        }
    }

    /// Begins the entry of an action.
    pub async fn begin(&self, entry: &NewEntry<'_>) -> Result<RecordedAction, Problem> {
        // The operator waits longer than this, so no action begins after its request failed.
        let id = tokio::time::timeout(BEGIN_TIMEOUT, audit::begin(&self.pool, entry))
            .await
            .map_err(|_| Problem::overloaded())??;
        self.open().insert(id);
        Ok(RecordedAction::new(id, self.clone()))
    }

    /// After `stop`, waits for the requests, at most [`STOP_TIMEOUT`], and ends all entries
    /// that remain as failed.
    #[must_use]
    pub fn finish(self, stop: CancellationToken) -> BoxFuture<'static, ()> {
        async move {
            stop.cancelled().await;
            self.tasks.close();
            let _ = tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await;
            self.cut_off.cancel();
            let open: Vec<i64> = self.open().iter().copied().collect();
            for id in open {
                self.end(id, Err(INTERRUPTED), Map::new());
            }
            self.tasks.wait().await;
        }
        .boxed()
    }

    /// Stores the outcome of an entry, in a task of its own because the caller can be
    /// aborted. Returns `None` if the entry has an outcome already.
    fn end(
        &self,
        id: i64,
        result: Result<(), &str>,
        details: Map<String, Value>,
    ) -> Option<JoinHandle<()>> {
        if !self.open().remove(&id) {
            return None;
        }
        let result = result.map_err(str::to_owned);
        Some(
            self.tasks
                .spawn(store(self.pool.clone(), id, result, details)),
        )
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn begin_request(&self, parts: &mut Parts) -> Result<RecordedAction, Problem> {
        let operator = Operator::from_request_parts(parts, &()).await?;
        let route = parts.extensions.get::<MatchedPath>();
        let route = route.map_or("", MatchedPath::as_str).to_owned();
        let path = route.strip_prefix(PATH).unwrap_or(&route);
        let action = action(&parts.method, path);
        let name = match action {
            Some(action) => action.as_str().to_owned(),
            None => format!("{} {path}", parts.method),
        };
        let targets = RawPathParams::from_request_parts(parts, &()).await;
        let target = targets
            .ok()
            .and_then(|targets| Some(target(action, targets.iter().next()?.1)));
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let details = form_urlencoded::parse(query)
            .filter(|(name, value)| {
                DETAILS.contains(&name.as_ref())
                    && value.len() <= MAX_DETAIL_LENGTH
                    // Postgres stores no NUL.
                    && !value.contains('\0')
            })
            .map(|(name, value)| (name.into_owned(), value.into()))
            .collect::<Map<String, Value>>();
        self.begin(&NewEntry {
            actor: &operator.subject,
            origin: Origin::Http,
            action: &name,
            target: target.as_deref(),
            details: details.into(),
        })
        .await
    }
}

async fn store(pool: PgPool, id: i64, result: Result<(), String>, details: Map<String, Value>) {
    let result = result.as_ref().copied().map_err(String::as_str);
    if let Err(error) = audit::end(&pool, id, result, &details.into()).await {
        let error = error_chain(&error);
        tracing::error!(
            id,
            error,
            "storing the outcome of action {id} failed: {error}; its audit entry stays `started`"
        );
    }
}

impl Middleware for RecordActions {
    async fn handle<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let has_route = request.extensions().get::<MatchedPath>().is_some();
        if request.method().is_safe() || !has_route {
            return next.run(request).await;
        }
        let tasks = self.tasks.clone();
        let recorded = tasks.spawn(record(self, request, next)).await;
        recorded.unwrap_or_else(|error| Problem::broken(&error).into_response())
    }
}

async fn record<S: InnerService>(
    actions: RecordActions,
    request: Request,
    next: Next<S>,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let recorded = match actions.begin_request(&mut parts).await {
        Ok(recorded) => recorded,
        Err(problem) => return problem.into_response(),
    };
    parts.extensions.insert(recorded.clone());
    let handler = catch_panic(next.run(Request::from_parts(parts, body)));
    let response = actions.cut_off.run_until_cancelled(handler).await;
    let response = response.unwrap_or_else(|| Problem::shutting_down().into_response());
    let problem = response.extensions().get::<Problem>();
    recorded.end_with_response(problem).await;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_one_spelling() {
        let id = "0193e5a0-0000-7000-8000-0000000000ff";
        for given in [id, "0193E5A00000700080000000000000FF"] {
            assert_eq!(target(Some(Action::EraseReader), given), id);
        }
        assert_eq!(target(Some(Action::Retry), "history.0012"), "history.12");
        assert_eq!(target(Some(Action::Retry), "nonsense"), "nonsense");
        assert_eq!(target(Some(Action::Pause), "history"), "history");
    }

    /// A route without a name of its own would be recorded with its method and path.
    #[test]
    fn every_documented_call_that_changes_something_has_an_action() {
        let document = crate::openapi::admin::document();
        let mut named = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                let method: Method = method.to_uppercase().parse().unwrap();
                let path = path.strip_prefix(PATH).unwrap();
                let action = action(&method, path);
                assert_eq!(action.is_none(), method.is_safe(), "{method} {path}");
                named.extend(action.map(Action::as_str));
            }
        }
        assert_eq!(named.len(), Action::ALL.len());
    }
}
