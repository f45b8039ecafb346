//! `POST /reading-sessions/start`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use commands::CommandService;
use domain::command::Occurrence;
use domain::event::DeviceType;
use domain::{BookId, Position, ReaderId, SessionId, Standing, StartSession, Timestamp};
use eventlog::clock;
use projections::zones::Zones;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Caller;
use crate::extract::hints::{self, BookDocument};
use crate::extract::{Hint, Json, Percent, RequestContext};
use crate::openapi::types;
use crate::problem::Problem;
use crate::response::CommandResponse;
use crate::session::{ChangedSessionResponse, SessionResponse};
use crate::warnings::Warnings;

/// The book to read, and the position at which reading starts.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Start)]
pub struct Body {
    /// The id of the book. The service accepts any UUID.
    #[schema(format = Uuid)]
    book_id: String,
    #[schema(schema_with = types::start_position)]
    start_position: Option<Percent>,
    #[schema(schema_with = types::device_type)]
    device_type: Option<DeviceType>,
    /// A UUIDv7 that the app generates, with a time from 30 days ago to one day
    /// in the future. It makes the start repeatable: a repeat with the same book
    /// and position returns the session in its current state, any other start
    /// with this id returns 409.
    session_id: Option<Uuid>,
    /// The app's id of the device. The service records it, and returns it in the
    /// export only.
    #[schema(value_type = Option<String>, max_length = 255)]
    device_id: Option<Hint>,
    #[schema(schema_with = types::time_zone)]
    time_zone: Option<Hint>,
    #[schema(schema_with = types::locator)]
    locator: Option<Hint>,
    #[schema(value_type = Option<BookDocument>)]
    book: Option<Hint>,
    #[schema(schema_with = types::occurred_at)]
    occurred_at: Option<Timestamp>,
    #[schema(schema_with = types::sent_at)]
    sent_at: Option<Timestamp>,
}

/// Start a session
///
/// The session becomes the active one if it has the reader's newest observation. The
/// session that was active then ends at its latest observation, with the `end_reason`
/// `superseded`. A start in the past is recorded and does not become active. An app
/// that generates the `session_id` can start a session while it is offline, and repeat
/// the start.
#[utoipa::path(
    post,
    path = "/api/v1/reading-sessions/start",
    operation_id = "start",
    tag = "commands",
    request_body = Body,
    responses((status = 201, description = "The new session", body = ChangedSessionResponse))
)]
pub async fn handle(
    State(commands): State<CommandService>,
    State(zones): State<Zones>,
    caller: Caller,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let mut warnings = Warnings::default();
    let (session_id, command) =
        body.command(caller.reader_id, clock::now(), &zones, &mut warnings)?;
    let committed = commands
        .start(session_id, command, context, move |outcome| {
            let body = ChangedSessionResponse {
                session: SessionResponse::from_result(&outcome),
                warnings: &warnings,
            };
            CommandResponse::for_session(StatusCode::CREATED, &outcome, &body)
        })
        .await?;
    Ok(CommandResponse::from_committed(committed))
}

impl Body {
    fn command(
        self,
        reader_id: ReaderId,
        now: Timestamp,
        zones: &Zones,
        warnings: &mut Warnings,
    ) -> Result<(SessionId, StartSession), Problem> {
        let book_id: BookId = Uuid::try_parse(&self.book_id)
            .map_err(|_| Problem::invalid_book_id(&self.book_id))?
            .into();
        let occurred = Occurrence::new(self.occurred_at, self.sent_at, now)?;
        warnings.add_shift(occurred, self.sent_at);
        let session_id = match self.session_id {
            Some(uuid) => SessionId::from_client(uuid, now)?,
            None => SessionId::new(occurred.at()),
        };
        let command = StartSession {
            reader_id,
            book_id,
            position: self
                .start_position
                .map_or(Position::START, |Percent(position)| position),
            device_type: self.device_type,
            device_id: hints::device_id(self.device_id, warnings),
            time_zone: hints::time_zone(self.time_zone, zones, warnings),
            locator: hints::locator(self.locator, warnings),
            book: hints::book(self.book, warnings),
            occurred,
            standing: Standing::Active,
        };
        Ok((session_id, command))
    }
}
