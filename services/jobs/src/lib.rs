//! Background jobs, which processes with the role `jobs` run: the job table, the
//! schedule of each job, its task, and the scheduler that runs it.
//!
//! This crate never imports HTTP.

pub mod schedule;
pub mod store;

pub mod scheduler;
pub mod silence;
pub mod tasks;

pub mod erasure;

pub mod error;
pub mod metrics;
pub mod settings;

pub use error::JobError;
pub use schedule::Job;
