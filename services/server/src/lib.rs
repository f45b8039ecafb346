//! The executable's parts: settings, connections, roles and the command line.
//! Only this crate reads the environment and opens connections. It contains no
//! SQL.

pub mod app;

pub mod config;
pub mod connect;
mod metrics;
mod telemetry;

pub mod cli;
