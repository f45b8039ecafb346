//! `POST /reading-sessions/start`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono_tz::Tz;
use commands::CommandService;
use domain::command::Occurrence;
use domain::event::{Book, DeviceType};
use domain::{BookId, Position, ReaderId, SessionId, StartSession, Timestamp};
use eventlog::clock;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::MAX_LOCATOR;
use crate::auth::Caller;
use crate::extract::{Json, JsonObject, Percent, RequestContext, bounded_text, whole_number};
use crate::openapi::types;
use crate::problem::Problem;
use crate::response::CommandResponse;
use crate::session::SessionResponse;

/// In characters.
const MAX_DEVICE_ID: usize = 255;
/// In characters; the limit of the author too.
const MAX_TITLE: usize = 500;
const MAX_PAGES: u32 = 100_000;

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
    #[schema(max_length = 255)]
    device_id: Option<String>,
    #[schema(schema_with = types::time_zone)]
    time_zone: Option<String>,
    #[schema(schema_with = types::locator)]
    locator: Option<String>,
    #[schema(value_type = Option<BookBody>)]
    book: Option<JsonObject<BookBody>>,
    #[schema(schema_with = types::occurred_at)]
    occurred_at: Option<Timestamp>,
}

/// The app's data about the book. The service stores it with the session and
/// returns it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Book)]
pub struct BookBody {
    #[schema(max_length = 500)]
    title: Option<String>,
    #[schema(max_length = 500)]
    author: Option<String>,
    /// The number of pages. The service needs it to compute `pages_read`.
    #[serde(default, deserialize_with = "whole_number")]
    #[schema(maximum = 100_000)]
    total_pages: Option<u32>,
}

/// Start a session
///
/// If the reader has an active session, it ends at its latest position with
/// `end_reason` `superseded`. An app that generates the `session_id` can start a
/// session while it is offline, and repeat the start.
#[utoipa::path(
    post,
    path = "/api/v1/reading-sessions/start",
    operation_id = "start",
    tag = "commands",
    request_body = Body,
    responses((status = 201, description = "The new session", body = SessionResponse))
)]
pub async fn handle(
    State(commands): State<CommandService>,
    caller: Caller,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let (session_id, command) = body.command(caller.reader_id, clock::now())?;
    let committed = commands
        .start(session_id, command, context, |outcome| {
            let session = SessionResponse::from_result(&outcome);
            CommandResponse::for_session(StatusCode::CREATED, &outcome, &session)
        })
        .await?;
    Ok(CommandResponse::from_committed(committed))
}

impl Body {
    fn command(
        self,
        reader_id: ReaderId,
        now: Timestamp,
    ) -> Result<(SessionId, StartSession), Problem> {
        let book_id: BookId = Uuid::try_parse(&self.book_id)
            .map_err(|_| Problem::invalid_book_id(&self.book_id))?
            .into();
        let occurred = Occurrence::new(self.occurred_at, now)?;
        let session_id = match self.session_id {
            Some(uuid) => SessionId::from_client(uuid, now)?,
            None => SessionId::new(occurred.at()),
        };
        let time_zone = match self.time_zone {
            Some(name) => name
                .parse()
                .map_err(|_| Problem::invalid("time_zone", "not an IANA time zone"))?,
            None => Tz::UTC,
        };
        let command = StartSession {
            reader_id,
            book_id,
            position: self
                .start_position
                .map_or(Position::START, |Percent(position)| position),
            device_type: self.device_type,
            device_id: bounded_text("device_id", self.device_id, MAX_DEVICE_ID)?,
            time_zone,
            locator: bounded_text("locator", self.locator, MAX_LOCATOR)?,
            book: self.book.map(|JsonObject(sent)| book(sent)).transpose()?,
            occurred,
        };
        Ok((session_id, command))
    }
}

fn book(book: BookBody) -> Result<Book, Problem> {
    if book.total_pages.is_some_and(|pages| pages > MAX_PAGES) {
        let message = format!("must be at most {MAX_PAGES}");
        return Err(Problem::invalid("book.total_pages", message));
    }
    Ok(Book {
        title: bounded_text("book.title", book.title, MAX_TITLE)?,
        author: bounded_text("book.author", book.author, MAX_TITLE)?,
        total_pages: book.total_pages,
    })
}
