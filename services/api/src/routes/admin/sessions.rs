//! `GET /admin/sessions/{id}`

use axum::Json;
use axum::extract::State;
use domain::{ReadingSession, SessionError, SessionId, Timestamp};
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::{LogError, StoredEvent, load_state, read};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};

use super::page;
use crate::extract::{Query, SessionPath};
use crate::problem::Problem;
use crate::session::SessionResponse;

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// The number of events per page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// The `next` of the previous page: only events with a greater sequence.
    #[param(minimum = 0)]
    after: Option<i64>,
}

/// The events of a session, in order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Timeline)]
pub struct TimelineResponse {
    #[schema(value_type = Uuid)]
    id: SessionId,
    events: Vec<TimelineEvent>,
    /// The `after` of the next page. Null on the last page.
    #[schema(required)]
    next: Option<i64>,
}

/// An event, and the session after it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineEvent {
    /// The number of the event in its session, from 1.
    sequence: i64,
    global_position: i64,
    r#type: String,
    /// The version of the payload's format.
    version: String,
    #[schema(value_type = DateTime)]
    recorded_at: Timestamp,
    #[schema(value_type = Object)]
    payload: Box<RawValue>,
    /// The session after this event. Null after an erasure, and after an event that this
    /// build cannot decode.
    #[schema(required)]
    state: Option<SessionResponse>,
    /// Why this build cannot decode the event. Null if it can.
    #[schema(required)]
    error: Option<String>,
}

/// Retrieve the timeline of a session
///
/// Returns the events of a session as the log stores them, each with the session after it.
#[utoipa::path(
    get,
    path = "/api/v1/admin/sessions/{id}",
    operation_id = "timeline",
    tag = "readers",
    params(("id" = Uuid, Path, description = "The session"), Params),
    responses((status = 200, description = "A page of events", body = TimelineResponse))
)]
pub async fn handle(
    State(pool): State<PgPool>,
    SessionPath(id): SessionPath,
    Query(params): Query<Params>,
) -> Result<Json<TimelineResponse>, Problem> {
    let limit @ 1..=MAX_LIMIT = params.limit.unwrap_or(DEFAULT_LIMIT) else {
        return Err(Problem::out_of_range("limit", 1, MAX_LIMIT));
    };
    let after @ 0.. = params.after.unwrap_or(0) else {
        return Err(Problem::invalid("after", "must not be negative"));
    };
    let events = read::session_page(&pool, id, after, limit + 1);
    let mut events = with_deadline(STATEMENT_DEADLINE, events).await?;
    if events.is_empty() && after == 0 {
        return Err(SessionError::NotFound.into());
    }
    let next = page::cut(&mut events, limit, |last| last.sequence);
    let mut session = before(&pool, id, after).await?;
    let events = events
        .into_iter()
        .map(|event| TimelineEvent::new(id, event, &mut session))
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::broken(&error))?;
    Ok(Json(TimelineResponse { id, events, next }))
}

/// The session after its event `sequence`; `None` if this build cannot decode it.
async fn before(
    pool: &PgPool,
    id: SessionId,
    sequence: i64,
) -> Result<Option<ReadingSession>, LogError> {
    if sequence == 0 {
        return Ok(Some(ReadingSession::default()));
    }
    let wanted = [(id, sequence)];
    let loaded = load_state::sessions(pool, &wanted);
    let loaded = with_deadline(STATEMENT_DEADLINE, loaded).await?;
    Ok(loaded.into_iter().next().map(|loaded| loaded.session))
}

impl TimelineEvent {
    /// Applies the event to `session`, which becomes `None` if it cannot be decoded.
    fn new(
        id: SessionId,
        stored: StoredEvent,
        session: &mut Option<ReadingSession>,
    ) -> Result<Self, serde_json::Error> {
        let error = match stored.decode() {
            Ok(event) => {
                if let Some(session) = session {
                    session.apply(&event.event);
                }
                None
            }
            Err(error) => {
                *session = None;
                Some(eventlog::error::error_chain(&error))
            }
        };
        let state = session.as_ref().and_then(ReadingSession::started);
        let state = state.map(|state| SessionResponse::new(id, stored.sequence, state));
        Ok(Self {
            sequence: stored.sequence,
            global_position: stored.global_position,
            r#type: stored.event_type,
            version: stored.event_version,
            recorded_at: stored.recorded_at,
            payload: RawValue::from_string(stored.payload)?,
            state,
            error,
        })
    }
}
