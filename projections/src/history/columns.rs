//! The rows of a batch as columns, since `unnest` takes an array per column.

use domain::event::DeviceType;
use domain::session::{Ending, ProgressChange};
use domain::{Observation, SessionId, SessionStarted, Timestamp};
use uuid::Uuid;

use super::SessionChange;

/// The time of a session's last activity, and the time of its latest position.
struct Activity<'a> {
    latest: &'a Observation,
    last_at: Timestamp,
}

impl<'a> Activity<'a> {
    /// `None` if the latest position is unchanged. The last activity is then unchanged
    /// too: only an end by the reader moves it alone, and every end has a position.
    fn new(progress: &'a ProgressChange) -> Option<Self> {
        let latest = progress.latest.as_ref()?;
        let last_at = match progress.ended {
            Some(ending) if Ending::is_final(ending) => ending.at,
            _ => latest.at,
        };
        Some(Self { latest, last_at })
    }

    /// `None` if it is the time of the last activity, as of nearly all sessions.
    fn position_at(&self) -> Option<Timestamp> {
        (self.latest.at != self.last_at).then_some(self.latest.at)
    }
}

/// Sessions whose start event is in the batch.
#[derive(Default)]
pub(super) struct StartedColumns<'a> {
    pub(super) session_ids: Vec<String>,
    pub(super) reader_ids: Vec<Uuid>,
    pub(super) book_ids: Vec<Uuid>,
    pub(super) versions: Vec<i64>,
    pub(super) started_at: Vec<Timestamp>,
    pub(super) ended_at: Vec<Option<Timestamp>>,
    pub(super) last_activity_at: Vec<Timestamp>,
    pub(super) position_at: Vec<Option<Timestamp>>,
    pub(super) active_ms: Vec<i64>,
    pub(super) start_positions: Vec<i32>,
    pub(super) positions: Vec<i32>,
    pub(super) furthest_positions: Vec<i32>,
    pub(super) device_types: Vec<Option<&'static str>>,
    pub(super) device_ids: Vec<Option<&'a str>>,
    pub(super) end_reasons: Vec<Option<&'static str>>,
    pub(super) locators: Vec<Option<&'a str>>,
    pub(super) book_titles: Vec<Option<&'a str>>,
    pub(super) book_authors: Vec<Option<&'a str>>,
    pub(super) book_total_pages: Vec<Option<i32>>,
    pub(super) time_zones: Vec<&'a str>,
}

impl<'a> StartedColumns<'a> {
    pub(super) fn push(
        &mut self,
        id: SessionId,
        start: &'a SessionStarted,
        change: &'a SessionChange,
    ) {
        let progress = &change.progress;
        let activity = Activity::new(progress);
        let latest = activity.as_ref().map(|activity| activity.latest);
        let book = start.book.as_ref();
        self.session_ids.push(id.to_string());
        self.reader_ids.push(start.reader_id.uuid());
        self.book_ids.push(start.book_id.uuid());
        self.versions.push(change.version);
        let first = progress.first;
        self.started_at
            .push(first.map_or(start.started_at, |first| first.at));
        self.ended_at.push(progress.ended.map(|ending| ending.at));
        self.last_activity_at.push(
            activity
                .as_ref()
                .map_or(start.started_at, |activity| activity.last_at),
        );
        self.position_at
            .push(activity.as_ref().and_then(Activity::position_at));
        self.active_ms.push(progress.active_ms);
        let start_position = first.map_or(start.position, |first| first.position);
        self.start_positions.push(start_position.steps());
        self.positions.push(
            latest
                .map_or(start.position, |latest| latest.position)
                .steps(),
        );
        self.furthest_positions
            .push(progress.furthest_position.steps());
        self.device_types
            .push(start.device_type.map(DeviceType::as_str));
        self.device_ids.push(start.device_id.as_deref());
        self.end_reasons
            .push(progress.ended.map(|ending| ending.reason.as_str()));
        self.locators
            .push(latest.and_then(|latest| latest.locator.as_deref()));
        self.book_titles
            .push(book.and_then(|book| book.title.as_deref()));
        self.book_authors
            .push(book.and_then(|book| book.author.as_deref()));
        self.book_total_pages
            .push(book.and_then(|book| book.total_pages?.try_into().ok()));
        self.time_zones.push(start.time_zone.as_str());
    }
}

/// Sessions that started before the batch.
#[derive(Default)]
pub(super) struct ChangedColumns<'a> {
    pub(super) session_ids: Vec<String>,
    pub(super) versions: Vec<i64>,
    /// `None` if the first observation is the start. No observation is ever removed, so
    /// the row then contains the start time and position already.
    pub(super) started_at: Vec<Option<Timestamp>>,
    pub(super) start_positions: Vec<Option<i32>>,
    pub(super) ended_at: Vec<Option<Timestamp>>,
    /// `None` if the latest position is unchanged.
    pub(super) last_activity_at: Vec<Option<Timestamp>>,
    pub(super) position_at: Vec<Option<Timestamp>>,
    pub(super) active_ms: Vec<i64>,
    pub(super) positions: Vec<Option<i32>>,
    pub(super) furthest_positions: Vec<i32>,
    pub(super) end_reasons: Vec<Option<&'static str>>,
    pub(super) locators: Vec<Option<&'a str>>,
}

impl<'a> ChangedColumns<'a> {
    pub(super) fn push(&mut self, id: SessionId, change: &'a SessionChange) {
        let progress = &change.progress;
        let activity = Activity::new(progress);
        let latest = activity.as_ref().map(|activity| activity.latest);
        self.session_ids.push(id.to_string());
        self.versions.push(change.version);
        let first = progress.first;
        self.started_at.push(first.map(|first| first.at));
        self.start_positions
            .push(first.map(|first| first.position.steps()));
        self.ended_at.push(progress.ended.map(|ending| ending.at));
        self.last_activity_at
            .push(activity.as_ref().map(|activity| activity.last_at));
        self.position_at
            .push(activity.as_ref().and_then(Activity::position_at));
        self.active_ms.push(progress.active_ms);
        self.positions
            .push(latest.map(|latest| latest.position.steps()));
        self.furthest_positions
            .push(progress.furthest_position.steps());
        self.end_reasons
            .push(progress.ended.map(|ending| ending.reason.as_str()));
        self.locators
            .push(latest.and_then(|latest| latest.locator.as_deref()));
    }
}
