//! The event log: Postgres holds it, JetStream carries it.
//!
//! Read the modules in this order; it is the path of a command. Nothing here
//! knows HTTP or Redis, and nothing opens a connection: handles come ready.

pub mod deadline;
pub mod pool;
pub mod recorded;
pub mod upcast;

pub mod append;
pub mod claims;
pub mod commits;
pub mod execute;
pub mod idempotency;
pub mod repository;

pub mod cloud_event;
pub mod fold;
pub mod read;
pub mod relay;
pub mod schema;
pub mod stream;
pub mod subject;
pub mod tail;

pub mod erase;
pub mod export;

pub mod server;

pub mod error;

pub use append::Appender;
pub use error::{AppendError, CommandError, LogError};
pub use execute::{Context, Done, Outcome, Sessions};
pub use pool::Pool;
pub use recorded::{Logged, Recorded, Stored};
pub use subject::Subjects;
