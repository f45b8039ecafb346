//! Tests of promises, against real servers; a module a promise, a test a
//! sentence.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod active_session_cache;
mod append_batch;
mod append_log;
mod architecture;
mod authentication;
mod bad_input;
mod batch_update;
mod command_line;
mod contract;
mod dead_letters;
mod dev;
mod edge;
mod events_command;
mod evolution;
mod hostile;
mod idempotency;
mod kill;
mod leases;
mod lifecycle;
mod nats_users;
mod one_active_session;
mod order_of_observations;
mod original;
mod outages;
mod partitions;
mod projections_equal_the_log;
mod queries;
mod rate_limits;
mod relay;
mod replay;
mod schemas;
mod shutdown;
mod statistics;
mod verify;
