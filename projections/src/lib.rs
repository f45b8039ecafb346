//! Read models of the event log: the history of sessions, each reader's active
//! session, and daily statistics. Read the modules in this order.
//!
//! The module that writes a read table also reads it. Nothing here knows HTTP.

pub mod checkpoint;
pub mod dead_letters;
pub mod projection;

pub mod lease;
pub mod worker;

pub mod rebuild;
pub mod status;
pub mod verify;

pub mod daily_stats;
pub mod history;

pub mod active_sessions;
pub mod cache;

pub mod operations;

pub use active_sessions::ActiveSessions;
pub use daily_stats::DailyStats;
pub use history::History;
pub use projection::{Checkpoint, CommitError, TableProjection, Projection, Step};

#[cfg(test)]
mod testing;
