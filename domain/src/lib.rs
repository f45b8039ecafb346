//! The rules of reading sessions, as pure functions.
//!
//! This crate does no I/O and reads no clock: every result depends on the
//! arguments alone. The modules are listed in reading order.

pub mod ids;
pub mod intervals;
pub mod position;
pub mod zone;

pub mod clock;
pub mod command;
pub mod event;
pub mod observation;
pub mod session;
pub mod standing;

pub mod calendar;
pub mod streak;

pub mod error;

pub use command::{CorrectSession, EndSession, SessionCommand, StartSession, UpdatePosition};
pub use error::SessionError;
pub use event::{PositionUpdated, SessionEnded, SessionErased, SessionEvent, SessionStarted};
pub use ids::{BookId, ReaderId, SessionId};
pub use intervals::{Interval, Intervals};
pub use observation::{FirstObservation, Observation, RecentTimes, Timeline, TimelineBuilder};
pub use position::Position;
pub use session::ReadingSession;
pub use standing::Standing;
pub use zone::ZoneName;

/// A point in time in UTC. Commands and events have millisecond precision.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
