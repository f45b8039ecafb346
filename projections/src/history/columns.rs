//! The rows of a batch as columns, since `unnest` takes an array per column.

use domain::event::DeviceType;
use domain::{SessionId, SessionStarted, Timestamp};
use uuid::Uuid;

use super::SessionChange;

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
    pub(super) time_zones: Vec<&'static str>,
}

impl<'a> StartedColumns<'a> {
    pub(super) fn push(
        &mut self,
        id: SessionId,
        start: &'a SessionStarted,
        change: &'a SessionChange,
    ) {
        let progress = &change.progress;
        let latest = progress.latest.as_ref();
        let book = start.book.as_ref();
        self.session_ids.push(id.to_string());
        self.reader_ids.push(start.reader_id.uuid());
        self.book_ids.push(start.book_id.uuid());
        self.versions.push(change.version);
        self.started_at.push(start.started_at);
        self.ended_at.push(progress.ended.map(|ending| ending.at));
        self.last_activity_at
            .push(latest.map_or(start.started_at, |latest| latest.at));
        self.active_ms.push(progress.active_ms);
        self.start_positions.push(start.position.steps());
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
        self.time_zones.push(start.time_zone.name());
    }
}

/// Sessions that started before the batch.
#[derive(Default)]
pub(super) struct ChangedColumns<'a> {
    pub(super) session_ids: Vec<String>,
    pub(super) versions: Vec<i64>,
    pub(super) ended_at: Vec<Option<Timestamp>>,
    /// `None` if the latest observation is unchanged.
    pub(super) last_activity_at: Vec<Option<Timestamp>>,
    pub(super) active_ms: Vec<i64>,
    pub(super) positions: Vec<Option<i32>>,
    pub(super) furthest_positions: Vec<i32>,
    pub(super) end_reasons: Vec<Option<&'static str>>,
    pub(super) locators: Vec<Option<&'a str>>,
}

impl<'a> ChangedColumns<'a> {
    pub(super) fn push(&mut self, id: SessionId, change: &'a SessionChange) {
        let progress = &change.progress;
        let latest = progress.latest.as_ref();
        self.session_ids.push(id.to_string());
        self.versions.push(change.version);
        self.ended_at.push(progress.ended.map(|ending| ending.at));
        self.last_activity_at.push(latest.map(|latest| latest.at));
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
