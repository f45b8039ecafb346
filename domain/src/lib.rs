//! Reading sessions as pure decisions.
//!
//! Everything here is a function of its arguments: nothing reads a clock, a
//! database or the network. Read the modules in this order.

pub mod ids;
pub mod position;

pub mod command;
pub mod event;
pub mod session;

pub mod calendar;
pub mod streak;

pub mod error;

pub use command::{EndSession, SessionCommand, StartSession, UpdatePosition};
pub use error::SessionError;
pub use event::{PositionUpdated, SessionEnded, SessionErased, SessionEvent, SessionStarted};
pub use ids::{BookId, ReaderId, SessionId};
pub use position::Position;
pub use session::ReadingSession;

/// A point in time, to the millisecond.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
