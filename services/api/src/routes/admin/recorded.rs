//! Records every admin request that may change something in the audit: an entry before
//! the handler, and its outcome afterwards. A route needs nothing for that, so none can be
//! without it.
//!
//! The request runs in a task of its own: an operator who disconnects stops neither the
//! action nor its entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use eventlog::audit::{self, Action, NewEntry, Origin};
use eventlog::error::error_chain;
use serde_json::{Map, Value};
use sqlx::PgPool;

use super::PATH;
use crate::auth::operator::Operator;
use crate::middleware::{InnerService, Middleware, Next};
use crate::problem::Problem;
use crate::request_log::catch_panic;

/// The parameters that an entry contains. Others may be anything.
const DETAILS: [&str; 2] = ["restart", "format"];

/// The longest value of such a parameter, in bytes. The valid ones are shorter.
const MAX_DETAIL_LENGTH: usize = 16;

/// How long an action may wait for its entry. Shorter than the deadline of a request.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

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

/// The layer below admission.
#[derive(Clone)]
pub struct RecordActions(pub PgPool);

impl Middleware for RecordActions {
    async fn handle<S: InnerService>(self, request: Request, next: Next<S>) -> Response {
        let has_route = request.extensions().get::<MatchedPath>().is_some();
        if request.method().is_safe() || !has_route {
            return next.run(request).await;
        }
        let recorded = tokio::spawn(record(self.0, request, next)).await;
        recorded.unwrap_or_else(|error| Problem::broken(&error).into_response())
    }
}

async fn record<S: InnerService>(pool: PgPool, request: Request, next: Next<S>) -> Response {
    let (mut parts, body) = request.into_parts();
    let recorded = match RecordedAction::begin(pool, &mut parts).await {
        Ok(recorded) => recorded,
        Err(problem) => return problem.into_response(),
    };
    parts.extensions.insert(recorded.clone());
    let response = catch_panic(next.run(Request::from_parts(parts, body))).await;
    let problem = response.extensions().get::<Problem>();
    if let Some(problem) = problem {
        let error = format!("{} {}", problem.status().as_u16(), problem.detail());
        recorded.end(Err(&error), Map::new()).await;
    } else if !recorded.continues.load(Ordering::Relaxed) {
        recorded.end(Ok(()), Map::new()).await;
    }
    response
}

/// The entry of the request, for handlers whose work continues after the response.
#[derive(Clone, Debug)]
pub struct RecordedAction {
    pool: PgPool,
    id: i64,
    continues: Arc<AtomicBool>,
}

impl RecordedAction {
    async fn begin(pool: PgPool, parts: &mut Parts) -> Result<Self, Problem> {
        let operator = Operator::from_request_parts(parts, &()).await?;
        let route = parts.extensions.get::<MatchedPath>();
        let route = route.map_or("", MatchedPath::as_str).to_owned();
        let path = route.strip_prefix(PATH).unwrap_or(&route);
        let name = match action(&parts.method, path) {
            Some(action) => action.as_str().to_owned(),
            None => format!("{} {path}", parts.method),
        };
        let targets = RawPathParams::from_request_parts(parts, &()).await;
        let target = targets
            .ok()
            .and_then(|targets| Some(targets.iter().next()?.1.to_owned()));
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
        let entry = NewEntry {
            actor: &operator.subject,
            origin: Origin::Http,
            action: &name,
            target: target.as_deref(),
            details: details.into(),
        };
        // The operator waits longer than this, so no action begins after its request failed.
        let id = tokio::time::timeout(BEGIN_TIMEOUT, audit::begin(&pool, &entry))
            .await
            .map_err(|_| Problem::overloaded())??;
        Ok(Self {
            pool,
            id,
            continues: Arc::default(),
        })
    }

    /// The id of the entry.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The work continues after the response: the caller must call [`Self::end`].
    pub fn continues(&self) {
        self.continues.store(true, Ordering::Relaxed);
    }

    /// Adds the outcome to the entry. `details` are results of the action.
    pub async fn end(&self, result: Result<(), &str>, details: Map<String, Value>) {
        let ended = audit::end(&self.pool, self.id, result, &details.into()).await;
        if let Err(error) = ended {
            let (id, error) = (self.id, error_chain(&error));
            tracing::error!(
                id,
                error,
                "storing the outcome of action {id} failed: {error}; its audit entry stays `started`"
            );
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RecordedAction {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let recorded = parts.extensions.get::<Self>().cloned();
        // The layer is on all routes.
        recorded.ok_or_else(Problem::internal)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

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
