//! Background jobs: the job table, when each job is due, what it does, and the
//! scheduler that runs it. Each job runs in one process at a time.

pub mod metrics;
pub mod schedule;
pub mod scheduler;
pub mod settings;
pub mod store;
pub mod tasks;

pub use schedule::Job;
