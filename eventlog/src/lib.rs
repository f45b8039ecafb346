//! The event store: Postgres contains the log of all events.
//!
//! Read the modules in this order: first what a connection needs, then the path of
//! an append, then reading. This crate decides nothing, uses neither NATS nor Redis
//! nor HTTP, and opens no connection: callers pass in pools.

pub mod availability;
pub mod clock;
pub mod connections;
pub mod database_health;
pub mod deadline;
pub mod health;
pub mod lease;
pub mod migrations;
pub mod pool;
pub mod postgres_info;
pub mod roles;
pub mod sqlstate;
pub mod trace;

pub mod recorded;
pub mod upcast;

pub mod active_claims;
pub mod append;
pub mod commit_feed;
pub mod idempotency;
pub mod outgoing;
pub mod stored_bytes;

pub mod load_state;
pub mod read;

pub mod erase;
pub mod export;

pub mod audit;

pub mod cqrs_es;

pub mod error;

pub use append::{AppendedBatch, Appender};
pub use error::{AppendError, LogError};
pub use pool::Pool;
pub use recorded::{LogEntry, RecordedEvent, StoredEvent};
