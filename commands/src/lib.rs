//! The command side: loads a session, decides a command and appends its events.
//! If another process appended first, it loads the new events and decides again.
//!
//! This crate uses neither NATS nor HTTP nor Redis, and never reads or writes the
//! read tables. Read the modules in this order; it is the path of a command.

pub mod command;
pub mod service;

mod commit;
mod decision;
mod executor;
mod pending;
mod reader_locks;
pub mod repository;
pub mod result;

mod active_session;
mod recent_changes;

pub mod erasure;

mod error;

pub use active_session::ActiveSession;
pub use command::{BatchUpdate, CommandContext, SyncSession};
pub use error::CommandError;
pub use result::{BatchOutcome, CommandResult, Committed, EndedIdle, Observed, SyncOutcome};
pub use service::CommandService;
