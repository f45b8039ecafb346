//! `POST /reading-sessions/start`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono_tz::Tz;
use domain::command::Occurrence;
use domain::event::{Book, DeviceType};
use domain::{BookId, Position, ReaderId, SessionId, StartSession, Timestamp};
use serde::Deserialize;
use uuid::Uuid;

use super::MAX_LOCATOR;
use crate::api;
use crate::api::auth::Reader;
use crate::api::extract::{CommandContext, Json, Percent, text};
use crate::api::problem::Problem;
use crate::api::session::{Session, answer};
use crate::clock;

const MAX_DEVICE_ID: usize = 255;
const MAX_TITLE: usize = 500;
const MAX_PAGES: u32 = 100_000;

/// Where and how reading starts.
#[derive(Debug, Deserialize)]
pub struct Body {
    book_id: String,
    start_position: Option<Percent>,
    device_type: Option<DeviceType>,
    /// A UUIDv7 made by the app; the start can then be repeated.
    session_id: Option<Uuid>,
    device_id: Option<String>,
    /// An IANA name, as `Europe/Berlin`.
    time_zone: Option<String>,
    locator: Option<String>,
    book: Option<BookBody>,
    occurred_at: Option<Timestamp>,
}

/// What the app knows about the book.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BookBody {
    title: Option<String>,
    author: Option<String>,
    total_pages: Option<u32>,
}

/// Starts a session and ends the reader's active one.
pub async fn handle(
    State(state): State<api::State>,
    Reader(reader_id): Reader,
    CommandContext(context): CommandContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let (session_id, command) = body.command(reader_id, clock::now())?;
    let outcome = state.sessions.start(session_id, command, context).await?;
    let versioned = &outcome.versioned;
    let session = versioned.session.started().ok_or_else(Problem::internal)?;
    let body = Session::new(session_id, versioned.sequence, session);
    Ok(answer(
        StatusCode::CREATED,
        &body,
        Some(versioned.sequence),
        outcome.global_position,
    ))
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
            None => SessionId::at(occurred.at()),
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
            book: self.book.map(book).transpose()?,
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
