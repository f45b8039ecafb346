//! The request of a sync.

use domain::Timestamp;
use domain::event::DeviceType;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::extract::hints::BookDocument;
use crate::extract::{Hint, Percent};
use crate::openapi::types;

/// Whole sessions, as a device recorded them.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Sync)]
pub struct Body {
    #[schema(schema_with = types::required_sent_at)]
    pub(super) sent_at: Timestamp,
    // Parsed one by one, so that an invalid session does not block the others.
    #[schema(value_type = Vec<SessionBody>, min_items = 1, max_items = 50)]
    pub(super) sessions: Vec<Box<RawValue>>,
}

/// A session, as a device recorded it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SyncSession)]
pub struct SessionBody {
    /// A UUIDv7 that the app generated when the session started.
    pub(super) session_id: Uuid,
    /// The id of the book. The service accepts any UUID.
    pub(super) book_id: Uuid,
    #[schema(value_type = DateTime)]
    pub(super) started_at: Timestamp,
    /// When the reader ended the session. Missing or null if the reader has not ended
    /// it, as far as the device knows.
    #[schema(value_type = Option<DateTime>)]
    pub(super) ended_at: Option<Timestamp>,
    #[schema(schema_with = types::start_position)]
    pub(super) start_position: Option<Percent>,
    /// The observations in the order in which the device recorded them.
    // Parsed one by one, so that an invalid observation does not block the others.
    #[schema(value_type = Vec<ObservationBody>, max_items = 500)]
    #[serde(default)]
    pub(super) observations: Vec<Box<RawValue>>,
    #[schema(schema_with = types::device_type)]
    pub(super) device_type: Option<DeviceType>,
    #[schema(value_type = Option<String>, max_length = 255)]
    pub(super) device_id: Option<Hint>,
    #[schema(schema_with = types::time_zone)]
    pub(super) time_zone: Option<Hint>,
    #[schema(value_type = Option<BookDocument>)]
    pub(super) book: Option<Hint>,
}

/// The fields of [`SessionBody`]. Others give a warning: a misspelled `ended_at`, for
/// example, would leave the session open.
pub(super) const SESSION_FIELDS: [&str; 10] = [
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
    pub(super) current_position: Percent,
    #[schema(value_type = DateTime)]
    pub(super) occurred_at: Timestamp,
    #[schema(schema_with = types::locator)]
    pub(super) locator: Option<Hint>,
}
