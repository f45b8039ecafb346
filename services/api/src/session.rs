//! The JSON form of a session in all responses.

use commands::CommandResult;
use domain::event::{Book, DeviceType, EndReason};
use domain::session::StartedSession;
use domain::{BookId, Position, ReaderId, SessionId, Timestamp};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::extract::hints::BookDocument;
use crate::openapi::types;
use crate::warnings::{Warning, Warnings};

/// A reading session. Positions are in percent of the book, with up to four
/// decimals. Times are in UTC.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionResponse {
    #[schema(value_type = Uuid)]
    id: SessionId,
    /// The reader.
    #[schema(value_type = Uuid)]
    user_id: ReaderId,
    #[schema(value_type = Uuid)]
    book_id: BookId,
    #[schema(value_type = DateTime)]
    started_at: Timestamp,
    /// Null while the session is active.
    #[schema(required, value_type = Option<DateTime>)]
    ended_at: Option<Timestamp>,
    /// The time from the start to the end, or to the latest observation of an
    /// active session. In whole minutes.
    duration_minutes: i64,
    /// The position of the first observation: of the start, unless an earlier one arrived
    /// later. In percent of the book.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    start_position: Position,
    /// The position of the observation with the latest time, also while the
    /// session is active. In percent of the book.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    end_position: Position,
    /// The whole pages of `progress_delta`. 0 if `book.total_pages` is missing or
    /// the progress is negative.
    pages_read: i64,
    #[schema(required, schema_with = types::device_type)]
    device_type: Option<DeviceType>,
    is_active: bool,
    /// `end_position` minus `start_position`, in percent of the book. Negative if
    /// the reader moved back.
    #[schema(value_type = f64)]
    progress_delta: ProgressDelta,
    /// `duration_minutes` in whole seconds.
    duration_seconds: i64,
    /// The active reading time, in whole seconds. A gap between two observations
    /// counts two minutes at most.
    active_seconds: i64,
    /// The highest position of all observations, late ones included. In percent
    /// of the book.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    furthest_position: Position,
    #[schema(required, schema_with = types::end_reason)]
    end_reason: Option<EndReason>,
    /// The time of the latest observation, or of the reader's end.
    #[schema(value_type = DateTime)]
    last_activity_at: Timestamp,
    /// The number of events of the session. It increases with every change.
    version: i64,
    /// The locator that was sent with the latest position; null if there was
    /// none.
    #[schema(required)]
    locator: Option<String>,
    #[schema(required, value_type = Option<BookDocument>)]
    book: Option<Book>,
}

/// The session after a command.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChangedSession)]
pub struct ChangedSessionResponse<'a> {
    #[serde(flatten)]
    pub session: SessionResponse,
    /// The parts of the request that the service changed or ignored. Missing if there are
    /// none.
    #[serde(skip_serializing_if = "Warnings::is_empty")]
    #[schema(value_type = Vec<Warning>)]
    pub warnings: &'a Warnings,
}

/// The difference of two positions, in ten-thousandths of a percent. Serialized
/// in percent.
#[derive(Clone, Copy, Debug)]
pub struct ProgressDelta(pub i64);

impl Serialize for ProgressDelta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        domain::position::serialize_percent(self.0, serializer)
    }
}

impl SessionResponse {
    /// The session after a command.
    #[must_use]
    pub fn from_result(result: &CommandResult) -> Self {
        let versioned = &result.versioned;
        let session = versioned.session.started();
        let session = session.expect("every accepted command leaves a started session");
        Self::new(result.session_id, versioned.sequence, session)
    }

    #[must_use]
    pub fn new(id: SessionId, version: i64, session: &StartedSession) -> Self {
        let StartedSession { start, progress } = session;
        let duration = session.duration();
        let (first, latest) = (session.first(), &progress.latest);
        let progress_delta = i64::from(latest.position.steps() - first.position.steps());
        Self {
            id,
            user_id: start.reader_id,
            book_id: start.book_id,
            started_at: first.at,
            ended_at: progress.ended.map(|end| end.at),
            duration_minutes: duration.num_minutes(),
            start_position: first.position,
            end_position: latest.position,
            pages_read: pages(progress_delta, start.book.as_ref()),
            device_type: start.device_type,
            is_active: session.is_active(),
            progress_delta: ProgressDelta(progress_delta),
            duration_seconds: duration.num_seconds(),
            active_seconds: progress.active_ms / 1_000,
            furthest_position: progress.furthest_position,
            end_reason: progress.ended.map(|end| end.reason),
            last_activity_at: progress.last_activity_at(),
            version,
            locator: latest.locator.clone(),
            book: start.book.clone(),
        }
    }
}

/// The whole pages in `progress_delta`, which is in ten-thousandths of a percent.
fn pages(progress_delta: i64, book: Option<&Book>) -> i64 {
    const STEPS_PER_BOOK: i64 = 1_000_000;
    let total = book.and_then(|book| book.total_pages).unwrap_or(0);
    progress_delta.max(0) * i64::from(total) / STEPS_PER_BOOK
}
