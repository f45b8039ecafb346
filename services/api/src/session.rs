//! A session as client apps see it; the shape of every answer that holds one.

use domain::event::{Book, DeviceType, EndReason};
use domain::session;
use domain::{BookId, Position, ReaderId, SessionId, Timestamp};
use commands::CommandResult;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::routes::commands::start::BookBody;
use crate::openapi::types;

/// A reading session. Positions are percent of the book, with up to four
/// decimals; times are UTC.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Session {
    #[schema(value_type = Uuid)]
    id: SessionId,
    #[schema(value_type = Uuid)]
    user_id: ReaderId,
    #[schema(value_type = Uuid)]
    book_id: BookId,
    #[schema(value_type = DateTime)]
    started_at: Timestamp,
    #[schema(required, value_type = Option<DateTime>)]
    ended_at: Option<Timestamp>,
    /// Wall-clock time from the start to the end or the latest observation, in
    /// whole minutes.
    duration_minutes: i64,
    #[schema(schema_with = types::percent)]
    start_position: Position,
    /// The latest position by the time of its observation, also while the session
    /// is active.
    #[schema(schema_with = types::percent)]
    end_position: Position,
    /// Whole pages of progress, when the book's length is known; else 0, as
    /// after reading back.
    pages_read: i64,
    #[schema(required, schema_with = types::device_type)]
    device_type: Option<DeviceType>,
    is_active: bool,
    /// From the start to the latest position; negative after reading back.
    #[schema(schema_with = types::progress)]
    progress_delta: Progress,
    /// As `duration_minutes`, in whole seconds.
    duration_seconds: i64,
    /// Reading time, in whole seconds: from one latest observation to the next,
    /// as they arrived, at most two minutes of each gap. One that comes late, by
    /// itself, adds none; a batch is put in order first.
    active_seconds: i64,
    /// Of all observations, late ones too.
    #[schema(schema_with = types::percent)]
    furthest_position: Position,
    /// `finished` by the reader, `superseded` by the start of another session,
    /// or `idle`, by the service, when nothing came for long; null while the
    /// session is active.
    #[schema(required, schema_with = types::end_reason)]
    end_reason: Option<EndReason>,
    /// When the latest observation was.
    #[schema(value_type = DateTime)]
    last_activity_at: Timestamp,
    /// How many events the session has.
    version: i64,
    /// Where exactly, in the app's own words, for example an EPUB CFI. Of the
    /// latest position; null when that came without one.
    #[schema(required)]
    locator: Option<String>,
    #[schema(required, value_type = Option<BookBody>)]
    book: Option<Book>,
}

/// A way from one position to another, in ten-thousandths of a percent.
/// Clients see percent.
#[derive(Clone, Copy, Debug)]
pub struct Progress(pub i64);

impl Serialize for Progress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        domain::position::serialize_percent(self.0, serializer)
    }
}

impl Session {
    /// The session that a command leaves.
    #[must_use]
    pub fn after(outcome: &CommandResult) -> Self {
        let versioned = &outcome.versioned;
        let session = versioned.session.started();
        let session = session.expect("no command is taken before the start");
        Self::new(outcome.session_id, versioned.sequence, session)
    }

    /// How a session looks to client apps.
    #[must_use]
    pub fn new(id: SessionId, version: i64, session: &session::StartedSession) -> Self {
        let session::StartedSession { start, progress } = session;
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
            progress_delta: Progress(progress_delta),
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
