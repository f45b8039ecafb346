//! `POST /reading-sessions/sync`

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use commands::{CommandContext, CommandError, CommandService, SyncOutcome};
use domain::SessionId;
use eventlog::clock;
use projections::zones::Zones;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::extract::{Json, RequestContext};
use crate::problem::Problem;
use crate::response::CommandResponse;
use crate::warnings::{Warning, Warnings};

mod body;
mod parsed;
mod result;

use body::Body;
use parsed::{Arrival, ParsedSession};
use result::SessionResult;

const MAX_SESSIONS: usize = 50;

/// The results of a sync.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Synced)]
pub struct SyncResponse {
    /// The result of each session, in the order of the request.
    results: Vec<SessionResult>,
    /// The parts of the request that the service changed or ignored. Missing if there are
    /// none.
    #[serde(skip_serializing_if = "Warnings::is_empty")]
    #[schema(value_type = Vec<Warning>)]
    warnings: Warnings,
}

/// Upload whole sessions
///
/// For devices that recorded sessions while they were offline. Each session is merged
/// into the one with its id, if that exists: the service adds the observations that it
/// does not have yet. Sending a session again changes nothing. Each session is one
/// transaction: it is stored completely or not at all, and a refused session or
/// observation does not block the others.
///
/// A session without `ended_at` becomes active if it has the reader's newest observation.
/// A session with `ended_at` never becomes active. If its observations are newer than those
/// of the active session, that one is superseded until its next update. Older sessions do
/// not affect the active one.
#[utoipa::path(
    post,
    path = "/api/v1/reading-sessions/sync",
    operation_id = "sync",
    tag = "commands",
    request_body = Body,
    responses((status = 200, description = "The result of each session", body = SyncResponse))
)]
pub async fn handle(
    State(commands): State<CommandService>,
    State(zones): State<Zones>,
    caller: Caller,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let count = body.sessions.len();
    if count == 0 || count > MAX_SESSIONS {
        let message = format!("must contain 1 to {MAX_SESSIONS} sessions, not {count}");
        return Err(Problem::invalid("sessions", message));
    }
    let arrival = Arrival {
        reader_id: caller.reader_id,
        sent_at: body.sent_at,
        received: clock::now(),
        zones: &zones,
    };
    let mut warnings = Warnings::default();
    let mut parsed: Vec<_> = (0..)
        .zip(&body.sessions)
        .map(|(index, session)| {
            let mut of_session = Warnings::default();
            let parsed = arrival.parse(session, &mut of_session);
            warnings.add_item(&format!("sessions[{index}]"), of_session);
            (index, parsed)
        })
        .collect();
    // The session with the newest observation comes first: it may become the active one,
    // and then no other one does.
    parsed.sort_by_key(|(_, (_, parsed))| Reverse(parsed.as_ref().ok().map(ParsedSession::newest)));
    // Each session is a command of its own; the key belongs to all of them.
    let each = CommandContext {
        key: None,
        ..context.clone()
    };
    let mut results = BTreeMap::new();
    let mut merged = Vec::new();
    let mut last = None;
    for (index, (session_id, session)) in parsed {
        let result = match session {
            Ok(session) => {
                let (result, event) = session.execute(&commands, &each).await?;
                merged.extend(event.map(|(_, session_id, version)| (session_id, version)));
                last = last.max(event);
                result
            }
            Err(problem) => SessionResult::refused(session_id, &problem),
        };
        results.insert(index, result);
    }
    let results: Vec<SessionResult> = results.into_values().collect();
    let last_event = last.map(|(_, session_id, version)| (session_id, version));
    let response = CommandResponse::for_batch(last_event, &SyncResponse { results, warnings });
    commands
        .store_response(caller.reader_id, &context, &response, merged)
        .await?;
    Ok(response.into_response_at(last.map(|(global_position, ..)| global_position)))
}

impl ParsedSession {
    /// Merges the session. Returns the result, and the last event that it depends on: its
    /// global position, the session and its sequence.
    ///
    /// # Errors
    /// If the service cannot process commands. The sessions before it are stored, and
    /// the client repeats the call.
    async fn execute(
        self,
        commands: &CommandService,
        context: &CommandContext,
    ) -> Result<(SessionResult, Option<(i64, SessionId, i64)>), Problem> {
        let Self {
            sync,
            indexes,
            refused,
        } = self;
        let session_id = sync.session_id;
        let respond = move |outcome: SyncOutcome| {
            let version = outcome.versioned.sequence;
            let result = SessionResult::merged(&outcome, &indexes, refused.clone());
            (result, version)
        };
        match commands.sync(sync, context.clone(), respond).await {
            Ok(committed) => {
                let (result, version) = committed.response;
                let last = committed
                    .global_position
                    .map(|global_position| (global_position, session_id, version));
                Ok((result, last))
            }
            Err(CommandError::Refused(refusal)) => {
                let problem = Problem::from(refusal);
                let result = SessionResult::refused(Some(session_id.to_string()), &problem);
                Ok((result, None))
            }
            Err(error) => Err(error.into()),
        }
    }
}
