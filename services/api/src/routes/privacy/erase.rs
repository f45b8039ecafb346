//! `DELETE /reading-sessions`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use commands::CommandService;
use domain::{BookId, ReaderId, SessionId, Timestamp};
use eventlog::erase::Erased;
use eventlog::{LogError, Pool, clock};
use jobs::erasure;
use projections::cache::Cache;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::auth::Caller;
use crate::extract::{NoBody, StrictQuery};
use crate::problem::Problem;
use crate::response::GLOBAL_POSITION;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// The reader's own id (`user_id` of their sessions), as a safeguard against
    /// accidental calls.
    confirm: Uuid,
    /// Delete only the reader's sessions with this book.
    book_id: Option<Uuid>,
}

/// The result of an erasure.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Erasure)]
pub struct EraseResponse {
    /// The number of erased sessions. 0 if the reader has none, for example
    /// because they were erased before.
    pub sessions: i64,
    #[schema(value_type = DateTime)]
    pub erased_at: Timestamp,
}

/// Erase all of the reader's data, or the sessions with one book
///
/// Once this request returns, none of the erased sessions can be read. The stored
/// responses of the reader's `Idempotency-Key`s are gone; with `book_id`, only those that
/// contain one of the sessions. History and
/// statistics are cleared within moments. Afterwards the service overwrites the
/// events in its log. An erasure cannot be undone; repeating it is
/// harmless.
///
/// A query parameter that is not listed here, or a body, returns 400: it could be a
/// filter of the caller, and nothing must be erased then.
///
/// A valid token can start new sessions, so sign the reader out of the app
/// first.
#[utoipa::path(
    delete,
    path = "/api/v1/reading-sessions",
    operation_id = "erase",
    tag = "privacy",
    params(Params),
    responses((status = 202, description = "The sessions are erased", body = EraseResponse))
)]
pub async fn handle(
    State(handles): State<EraseHandles>,
    caller: Caller,
    StrictQuery(params): StrictQuery<Params>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    if ReaderId::from(params.confirm) != caller.reader_id {
        return Err(Problem::invalid(
            "confirm",
            "must be the reader id of the token",
        ));
    }
    let erased_at = domain::clock::normalize(clock::now());
    let scope = params
        .book_id
        .map_or(Scope::Reader, |id| Scope::Book(id.into()));
    let erased = handles.spawn(caller.reader_id, scope, erased_at).await?;
    let body = Json(EraseResponse {
        sessions: erased.sessions,
        erased_at,
    });
    let mut response = (StatusCode::ACCEPTED, body).into_response();
    if let Some(global_position) = erased.global_position {
        response
            .headers_mut()
            .insert(GLOBAL_POSITION, global_position.into());
    }
    Ok(response)
}

/// Which of the reader's sessions are erased.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    Reader,
    Book(BookId),
    Session(SessionId),
}

/// The dependencies of the handlers.
#[derive(Clone)]
pub struct EraseHandles {
    pub commands: CommandService,
    pub cache: Cache,
    /// For the table of jobs.
    pub pool: Pool,
}

impl EraseHandles {
    /// Erases in a task of its own, so that it completes if the client disconnects.
    pub(super) async fn spawn(
        self,
        reader_id: ReaderId,
        scope: Scope,
        at: Timestamp,
    ) -> Result<Erased, Problem> {
        let erased = tokio::spawn(self.erase(reader_id, scope, at)).await;
        Ok(erased.map_err(|error| Problem::broken(&error))??)
    }

    async fn erase(
        self,
        reader_id: ReaderId,
        scope: Scope,
        at: Timestamp,
    ) -> Result<Erased, LogError> {
        let commands = &self.commands;
        let erased = match scope {
            Scope::Reader => commands.erase(reader_id, at).await?,
            Scope::Book(book_id) => {
                let ids = commands.sessions_of_book(reader_id, book_id).await?;
                commands.erase_sessions(reader_id, &ids, at).await?
            }
            Scope::Session(id) => commands.erase_sessions(reader_id, &[id], at).await?,
        };
        erasure::start(&self.cache, self.pool, reader_id, erased).await;
        Ok(erased)
    }
}
