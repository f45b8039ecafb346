//! The open entry of an action. It gets an outcome unless its process is killed, or cannot
//! write to Postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use eventlog::error::error_chain;
use futures::{TryStreamExt, stream};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::{INTERRUPTED, RecordActions};
use crate::problem::Problem;

/// The entry of a request. Handlers whose work continues after the response keep it. If the
/// last clone is dropped before the entry has ended, the action has failed.
#[derive(Clone)]
pub struct RecordedAction(Arc<OpenEntry>);

struct OpenEntry {
    id: i64,
    actions: RecordActions,
    /// The work continues after the response.
    continues: AtomicBool,
}

impl RecordedAction {
    pub(super) fn new(id: i64, actions: RecordActions) -> Self {
        Self(Arc::new(OpenEntry {
            id,
            actions,
            continues: AtomicBool::new(false),
        }))
    }

    /// The id of the entry.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.0.id
    }

    /// The work continues after the response: the caller must call [`Self::end`].
    pub fn continues(&self) {
        self.0.continues.store(true, Ordering::Relaxed);
    }

    /// Adds the outcome to the entry, unless it has one. `details` are results of the action.
    pub async fn end(&self, result: Result<(), &str>, details: Map<String, Value>) {
        if let Some(write) = self.0.actions.end(self.0.id, result, details) {
            let _ = write.await;
        }
    }

    /// Ends the entry with its response, unless the work continues. `problem` is that of the
    /// response.
    pub(super) async fn end_with_response(&self, problem: Option<&Problem>) {
        if let Some(problem) = problem {
            let error = format!("{} {}", problem.status().as_u16(), problem.detail());
            self.end(Err(&error), Map::new()).await;
        } else if !self.0.continues.load(Ordering::Relaxed) {
            self.end(Ok(()), Map::new()).await;
        }
    }

    /// Returns the response with a body that ends the entry.
    #[must_use]
    pub fn end_with_body(self, response: Response) -> Response {
        self.continues();
        response.map(|body| {
            let state = (body.into_data_stream(), self);
            let chunks = stream::try_unfold(state, async |(mut chunks, recorded)| {
                match chunks.try_next().await {
                    Ok(Some(chunk)) => Ok(Some((chunk, (chunks, recorded)))),
                    Ok(None) => {
                        recorded.end(Ok(()), Map::new()).await;
                        Ok(None)
                    }
                    Err(error) => {
                        recorded.end(Err(&error_chain(&error)), Map::new()).await;
                        Err(error)
                    }
                }
            });
            Body::from_stream(chunks)
        })
    }
}

impl Drop for OpenEntry {
    fn drop(&mut self) {
        let error = if std::thread::panicking() {
            "the action panicked"
        } else {
            INTERRUPTED
        };
        // Without a runtime, nothing can be written any more.
        if Handle::try_current().is_ok() {
            self.actions.end(self.id, Err(error), Map::new());
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
