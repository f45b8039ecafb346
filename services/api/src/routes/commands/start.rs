//! `POST /reading-sessions/start`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono_tz::Tz;
use domain::command::Occurrence;
use domain::event::{Book, DeviceType};
use domain::{BookId, Position, ReaderId, SessionId, StartSession, Timestamp};
use commands::CommandService;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::MAX_LOCATOR;
use crate::response::CommandResponse;
use crate::auth::Caller;
use crate::extract::{RequestContext, Json, Object, Percent, text, whole};
use crate::openapi::types;
use crate::problem::Problem;
use crate::session::Session;
use eventlog::clock;

const MAX_DEVICE_ID: usize = 255;
const MAX_TITLE: usize = 500;
const MAX_PAGES: u32 = 100_000;

/// Where and how reading starts.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Start)]
pub struct Body {
    #[schema(format = Uuid)]
    book_id: String,
    /// The beginning of the book by default.
    #[schema(schema_with = types::percent_sent_or_null)]
    start_position: Option<Percent>,
    #[schema(schema_with = types::device_type)]
    device_type: Option<DeviceType>,
    /// A UUIDv7 made by the app, at most 30 days old and at most a day ahead.
    /// The start can then be repeated: with the same book and position it is
    /// answered with the session as it stands, with others it is 409.
    session_id: Option<Uuid>,
    /// The device, as the app names it; kept in the log.
    #[schema(max_length = 255)]
    device_id: Option<String>,
    /// An IANA name; decides what is a day. UTC by default.
    #[schema(schema_with = types::time_zone)]
    time_zone: Option<String>,
    /// Where exactly, in the app's own words, for example an EPUB CFI.
    #[schema(max_length = 2048)]
    locator: Option<String>,
    #[schema(value_type = Option<BookBody>)]
    book: Option<Object<BookBody>>,
    /// When it was, if not now: at most 30 days ago. A time ahead of the service's
    /// clock, by up to a day, is taken as now.
    #[schema(value_type = Option<DateTime>)]
    occurred_at: Option<Timestamp>,
}

/// What the app knows about the book.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Book)]
pub struct BookBody {
    #[schema(max_length = 500)]
    title: Option<String>,
    #[schema(max_length = 500)]
    author: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    #[schema(maximum = 100_000)]
    total_pages: Option<u32>,
}

/// Start a session
///
/// The reader's active session, if any, ends where it is. With a `session_id`
/// of its own an app can start offline, and repeat the start.
#[utoipa::path(
    post,
    path = "/api/v1/reading-sessions/start",
    operation_id = "start",
    tag = "commands",
    request_body = Body,
    responses((status = 201, description = "The new session", body = Session))
)]
pub async fn handle(
    State(sessions): State<CommandService>,
    caller: Caller,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let (session_id, command) = body.command(caller.reader_id, clock::now())?;
    let done = sessions
        .start(session_id, command, context, |outcome| {
            CommandResponse::of_session(StatusCode::CREATED, &outcome, &Session::after(&outcome))
        })
        .await?;
    Ok(done.answer.response(done.global_position))
}

impl Body {
    fn command(
        self,
        reader_id: ReaderId,
        now: Timestamp,
    ) -> Result<(SessionId, StartSession), Problem> {
        let book_id: BookId = Uuid::try_parse(&self.book_id)
            .map_err(|_| Problem::bad_request(format!("Invalid book_id format: {}", self.book_id)))?
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
            device_id: text("device_id", self.device_id, MAX_DEVICE_ID)?,
            time_zone,
            locator: text("locator", self.locator, MAX_LOCATOR)?,
            book: self.book.map(|Object(sent)| book(sent)).transpose()?,
            occurred,
        };
        Ok((session_id, command))
    }
}

fn book(book: BookBody) -> Result<Book, Problem> {
    if book.total_pages.is_some_and(|pages| pages > MAX_PAGES) {
        return Err(Problem::invalid(
            "book.total_pages",
            format!("more than {MAX_PAGES}"),
        ));
    }
    Ok(Book {
        title: text("book.title", book.title, MAX_TITLE)?,
        author: text("book.author", book.author, MAX_TITLE)?,
        total_pages: book.total_pages,
    })
}
