//! Tests of promises, against real servers; a module a promise, a test a
//! sentence.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lifecycle;
mod one_active_session;
mod order_of_observations;
mod batch_update;
mod bad_input;
mod append_log;
mod projections_equal_the_log;
mod kill;
mod outages;
mod shutdown;
mod command_line;
mod architecture;
