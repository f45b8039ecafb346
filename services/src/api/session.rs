//! A session as client apps see it; the shape of every answer that holds one.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use domain::event::{Book, DeviceType, EndReason};
use domain::session;
use domain::{BookId, Position, ReaderId, SessionId, Timestamp};
use serde::Serialize;

/// The position of a command's last event in the log; queries can wait for it.
pub const GLOBAL_POSITION: HeaderName = HeaderName::from_static("x-global-position");

/// A reading session. Positions are percent of the book.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    id: SessionId,
    user_id: ReaderId,
    book_id: BookId,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    /// Wall-clock time from the start to the end or the latest observation, in
    /// whole minutes.
    duration_minutes: i64,
    start_position: Position,
    /// The latest position, also while the session is active.
    end_position: Position,
    /// Whole pages of progress, when the book's length is known; else 0.
    pages_read: i64,
    device_type: Option<DeviceType>,
    is_active: bool,
    /// From the start to the latest position; negative after reading back.
    #[serde(serialize_with = "percent")]
    progress_delta: i64,
    duration_seconds: i64,
    /// Time in which something was read, in whole seconds.
    active_seconds: i64,
    furthest_position: Position,
    end_reason: Option<EndReason>,
    last_activity_at: Timestamp,
    /// How many events the session has.
    version: i64,
    locator: Option<String>,
    book: Option<Book>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn percent<S: serde::Serializer>(steps: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    domain::position::serialize_percent(*steps, serializer)
}

impl Session {
    /// How a session looks to client apps.
    #[must_use]
    pub fn new(id: SessionId, version: i64, session: &session::Session) -> Self {
        let session::Session { start, progress } = session;
        let duration = session.duration();
        let latest = &progress.latest;
        let progress_delta = i64::from(latest.position.steps() - start.position.steps());
        Self {
            id,
            user_id: start.reader_id,
            book_id: start.book_id,
            started_at: start.started_at,
            ended_at: progress.ended.map(|ending| ending.at),
            duration_minutes: duration.num_minutes(),
            start_position: start.position,
            end_position: latest.position,
            pages_read: pages(progress_delta, start.book.as_ref()),
            device_type: start.device_type,
            is_active: session.is_active(),
            progress_delta,
            duration_seconds: duration.num_seconds(),
            active_seconds: progress.active_ms / 1_000,
            furthest_position: progress.furthest_position,
            end_reason: progress.ended.map(|ending| ending.reason),
            last_activity_at: latest.at,
            version,
            locator: latest.locator.clone(),
            book: start.book.clone(),
        }
    }
}

/// Whole pages in a progress of ten-thousandths of a percent.
fn pages(progress: i64, book: Option<&Book>) -> i64 {
    const STEPS_PER_BOOK: i64 = 1_000_000;
    let total = book.and_then(|book| book.total_pages).unwrap_or(0);
    progress.max(0) * i64::from(total) / STEPS_PER_BOOK
}

/// The answer to a command: JSON, with the session's version as its `ETag` and
/// the command's place in the log.
pub fn answer(
    status: axum::http::StatusCode,
    body: &impl Serialize,
    version: Option<i64>,
    global_position: Option<i64>,
) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(version) = version {
        let tag = HeaderValue::try_from(format!("\"{version}\"")).expect("digits in quotes");
        headers.insert(header::ETAG, tag);
    }
    if let Some(position) = global_position {
        headers.insert(GLOBAL_POSITION, HeaderValue::from(position));
    }
    (status, headers, axum::Json(body)).into_response()
}
