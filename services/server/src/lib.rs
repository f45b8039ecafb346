//! The executable's parts: settings, connections, roles and the command line.
//! Only this crate reads the environment and opens connections. It contains no
//! SQL.

pub mod app;

pub mod config;
pub mod connect;
mod health_metrics;
mod lag_metrics;
mod stream_metrics;
mod telemetry;

pub mod cli;
