//! `POST /reading-sessions/sync`

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use commands::{CommandContext, CommandError, CommandService, SyncOutcome, SyncSession};
use domain::clock as device_clock;
use domain::event::DeviceType;
use domain::{
    BookId, EndSession, Position, ReaderId, SessionId, Standing, StartSession, Timestamp,
    UpdatePosition,
};
use eventlog::clock;
use projections::zones::Zones;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Caller;
use crate::extract::hints::{self, BookDocument};
use crate::extract::{Hint, Json, JsonObject, Percent, RequestContext};
use crate::openapi::types;
use crate::problem::{FieldError, Problem, ProblemCode};
use crate::response::CommandResponse;
use crate::session::SessionResponse;
use crate::warnings::{Warning, Warnings};

const MAX_SESSIONS: usize = 50;
const MAX_OBSERVATIONS: usize = 500;

/// Whole sessions, as a device recorded them.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Sync)]
pub struct Body {
    #[schema(schema_with = types::required_sent_at)]
    sent_at: Timestamp,
    // Parsed one by one, so that an invalid session does not block the others.
    #[schema(value_type = Vec<SessionBody>, min_items = 1, max_items = 50)]
    sessions: Vec<Box<RawValue>>,
}

/// A session, as a device recorded it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SyncSession)]
pub struct SessionBody {
    /// A UUIDv7 that the app generated when the session started.
    session_id: Uuid,
    /// The id of the book. The service accepts any UUID.
    book_id: Uuid,
    #[schema(value_type = DateTime)]
    started_at: Timestamp,
    /// When the reader ended the session. Missing or null if the reader has not ended
    /// it, as far as the device knows.
    #[schema(value_type = Option<DateTime>)]
    ended_at: Option<Timestamp>,
    #[schema(schema_with = types::start_position)]
    start_position: Option<Percent>,
    /// The observations in the order in which the device recorded them.
    // Parsed one by one, so that an invalid observation does not block the others.
    #[schema(value_type = Vec<ObservationBody>, max_items = 500)]
    #[serde(default)]
    observations: Vec<Box<RawValue>>,
    #[schema(schema_with = types::device_type)]
    device_type: Option<DeviceType>,
    #[schema(value_type = Option<String>, max_length = 255)]
    device_id: Option<Hint>,
    #[schema(schema_with = types::time_zone)]
    time_zone: Option<Hint>,
    #[schema(value_type = Option<BookDocument>)]
    book: Option<Hint>,
}

/// The fields of [`SessionBody`]. Others give a warning: a misspelled `ended_at`, for
/// example, would leave the session open.
const SESSION_FIELDS: [&str; 10] = [
    "session_id",
    "book_id",
    "started_at",
    "ended_at",
    "start_position",
    "observations",
    "device_type",
    "device_id",
    "time_zone",
    "book",
];

/// Where the reader was at a point in time.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SyncObservation)]
pub struct ObservationBody {
    #[schema(schema_with = types::current_position)]
    current_position: Percent,
    #[schema(value_type = DateTime)]
    occurred_at: Timestamp,
    #[schema(schema_with = types::locator)]
    locator: Option<Hint>,
}

/// The results of a sync.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Synced)]
pub struct SyncResponse {
    /// The result of each session, in the order of the request.
    results: Vec<SessionResult>,
    /// What the service changed or ignored. Missing if there is nothing.
    #[serde(skip_serializing_if = "Warnings::is_empty")]
    #[schema(value_type = Vec<Warning>)]
    warnings: Warnings,
}

/// The result of one session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SyncedSession)]
pub struct SessionResult {
    /// The `session_id` of the session. Null if it was missing or not a string.
    #[schema(required)]
    session_id: Option<String>,
    /// Whether the session is stored with the observations that are not in `refused`.
    success: bool,
    /// The session in its current state. Null if `success` is false.
    #[schema(required, value_type = Option<SessionResponse>)]
    session: Option<SessionResponse>,
    /// How many of the observations the service did not have yet.
    new_observations: usize,
    /// The observations that the service refused.
    refused: Vec<RefusedObservation>,
    /// The problem code, if `success` is false. Otherwise null.
    #[schema(required)]
    code: Option<ProblemCode>,
    /// Why the session was refused. Null if `success` is true.
    #[schema(required)]
    error: Option<String>,
}

/// An observation that the service refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RefusedObservation {
    /// The index in `observations`, from 0.
    index: usize,
    code: ProblemCode,
    error: String,
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

/// The circumstances in which the sessions arrived.
struct Arrival<'a> {
    reader_id: ReaderId,
    sent_at: Timestamp,
    received: Timestamp,
    zones: &'a Zones,
}

/// A valid session.
struct ParsedSession {
    sync: SyncSession,
    /// The indexes of `sync.observations` in the request.
    indexes: Vec<usize>,
    refused: Vec<RefusedObservation>,
}

/// The session id as in the request, and the session or its problem.
type Parsed = (Option<String>, Result<ParsedSession, Problem>);

impl Arrival<'_> {
    fn parse(&self, session: &RawValue, warnings: &mut Warnings) -> Parsed {
        let body = match parse_json::<SessionBody>(session) {
            Ok(body) => body,
            Err(problem) => return (sent_session_id(session), Err(problem)),
        };
        let session_id = Some(body.session_id.to_string());
        hints::warn_unknown_fields(session, &SESSION_FIELDS, warnings);
        (session_id, self.session(body, warnings))
    }

    fn session(
        &self,
        body: SessionBody,
        warnings: &mut Warnings,
    ) -> Result<ParsedSession, Problem> {
        let session_id = SessionId::from_client(body.session_id, self.received)?;
        let count = body.observations.len();
        if count > MAX_OBSERVATIONS {
            let message = format!("must contain at most {MAX_OBSERVATIONS}, not {count}");
            return Err(Problem::invalid("observations", message));
        }
        if body
            .ended_at
            .is_some_and(|ended_at| ended_at < body.started_at)
        {
            return Err(Problem::invalid(
                "ended_at",
                "must not be before started_at",
            ));
        }
        let mut refused = Vec::new();
        let mut valid = Vec::with_capacity(count);
        for (index, observation) in body.observations.iter().enumerate() {
            match parse_json::<ObservationBody>(observation) {
                Ok(observation) => valid.push((index, observation)),
                Err(problem) => refused.push(RefusedObservation::new(index, &problem)),
            }
        }
        let mut times = vec![Some(body.started_at)];
        times.extend(
            valid
                .iter()
                .map(|(_, observation)| Some(observation.occurred_at)),
        );
        times.extend(body.ended_at.map(Some));
        let mut placed = device_clock::place(&times, Some(self.sent_at), self.received).into_iter();
        let started = placed.next().expect("the start has a time")?;
        let mut observations = Vec::with_capacity(valid.len());
        let mut indexes = Vec::with_capacity(valid.len());
        for (index, observation) in valid {
            let occurred = placed.next().expect("each observation has a time");
            let mut of_observation = Warnings::default();
            let locator = hints::locator(observation.locator, &mut of_observation);
            warnings.add_item(&format!("observations[{index}]"), of_observation);
            match occurred {
                Ok(occurred) => {
                    indexes.push(index);
                    observations.push(UpdatePosition {
                        position: observation.current_position.0,
                        locator,
                        occurred,
                        standing: Standing::Active,
                    });
                }
                Err(refusal) => {
                    refused.push(RefusedObservation::new(index, &Problem::from(refusal)));
                }
            }
        }
        let end = placed.next().transpose()?.map(|occurred| EndSession {
            position: None,
            locator: None,
            occurred,
        });
        let start_position = body.start_position.map(|Percent(start)| start);
        Ok(ParsedSession {
            sync: SyncSession {
                session_id,
                start: StartSession {
                    reader_id: self.reader_id,
                    book_id: BookId::from(body.book_id),
                    position: start_position.unwrap_or(Position::START),
                    device_type: body.device_type,
                    device_id: hints::device_id(body.device_id, warnings),
                    time_zone: hints::time_zone(body.time_zone, self.zones, warnings),
                    locator: None,
                    book: hints::book(body.book, warnings),
                    occurred: started,
                    standing: Standing::Active,
                },
                start_position,
                observations,
                end,
            },
            indexes,
            refused,
        })
    }
}

impl ParsedSession {
    /// The time of the newest observation.
    fn newest(&self) -> Timestamp {
        let times = self
            .sync
            .observations
            .iter()
            .map(|update| update.occurred.at());
        times.fold(self.sync.start.occurred.at(), Timestamp::max)
    }

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

impl SessionResult {
    fn merged(
        outcome: &SyncOutcome,
        indexes: &[usize],
        mut refused: Vec<RefusedObservation>,
    ) -> Self {
        let mut new_observations = 0;
        for (index, result) in indexes.iter().zip(&outcome.results) {
            match result {
                Ok(observed) => new_observations += usize::from(observed.is_new),
                Err(refusal) => {
                    refused.push(RefusedObservation::new(*index, &Problem::from(*refusal)));
                }
            }
        }
        refused.sort_by_key(|refused| refused.index);
        let versioned = &outcome.versioned;
        let session = versioned.session.started();
        Self {
            session_id: Some(outcome.session_id.to_string()),
            success: true,
            session: session.map(|session| {
                SessionResponse::new(outcome.session_id, versioned.sequence, session)
            }),
            new_observations,
            refused,
            code: None,
            error: None,
        }
    }

    fn refused(session_id: Option<String>, problem: &Problem) -> Self {
        Self {
            session_id,
            success: false,
            session: None,
            new_observations: 0,
            refused: Vec::new(),
            code: Some(problem.code()),
            error: Some(problem.detail().to_owned()),
        }
    }
}

impl RefusedObservation {
    fn new(index: usize, problem: &Problem) -> Self {
        Self {
            index,
            code: problem.code(),
            error: problem.detail().to_owned(),
        }
    }
}

fn parse_json<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_str(json.get());
    match serde_path_to_error::deserialize(&mut json) {
        Ok(JsonObject(parsed)) => Ok(parsed),
        Err(error) => {
            let error = FieldError::from_parser(error.path(), &error.inner().to_string());
            Err(Problem::invalid_field(error))
        }
    }
}

/// The `session_id` of an invalid session, if it is a string.
fn sent_session_id(session: &RawValue) -> Option<String> {
    let session: serde_json::Value = serde_json::from_str(session.get()).ok()?;
    Some(session.get("session_id")?.as_str()?.to_owned())
}
