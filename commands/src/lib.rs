//! The command side: load a session, decide, append; when another process
//! appended first, load the new events and decide again.
//!
//! This crate imports neither NATS nor HTTP. Read the modules in this order; it
//! is the path of a command.

pub mod service;

mod pending;
mod reader_locks;
pub mod repository;
pub mod result;

pub mod erasure;

mod error;

pub use error::CommandError;
pub use result::{Active, BatchOutcome, BatchUpdate, CommandContext, Committed, EndedIdle, CommandResult};
pub use service::CommandService;
