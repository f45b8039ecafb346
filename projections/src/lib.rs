//! Read models of the event log: the history of sessions, each reader's active
//! session, and daily statistics.
//!
//! The module that writes a read table also reads it. This crate never imports HTTP,
//! and never appends to the log. Read the modules in this order: the parts of a
//! projection, the worker that runs it, operations on it, the projections, and
//! `operations`, which selects a projection by its name.

pub mod checkpoint;
pub mod dead_letters;
pub mod projection;

mod commit;
pub mod flush;
mod lease;
pub mod worker;

pub mod tasks;

pub mod error;
pub mod rebuild;
pub mod status;
pub mod verify;

pub mod zones;

pub mod daily_stats;
pub mod history;

pub mod active_sessions;
pub mod cache;

pub mod operations;

pub use active_sessions::ActiveSessions;
pub use daily_stats::DailyStats;
pub use error::OperationError;
pub use history::History;
pub use projection::{
    BatchRange, Checkpoint, CommitError, Projection, TableProjection, fold_all, new_revision,
};

#[cfg(test)]
mod testing;
