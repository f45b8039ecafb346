//! The executable's parts: settings, connections, roles, the HTTP edge, the
//! development servers. Only this crate reads the environment and opens
//! connections; it writes no SQL.

pub mod backlog;
pub mod clock;
pub mod config;
pub mod connect;
pub mod metrics;
pub mod pulse;
pub mod telemetry;

pub mod export;
pub mod letters;
pub mod replays;

pub mod api;
pub mod erasures;
pub mod maintenance;
pub mod roles;

pub mod dev;
pub mod operator;
