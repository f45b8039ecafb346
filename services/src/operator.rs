//! Commands of operators and developers, one a file.

pub mod config;
pub mod dev;
pub mod events;
pub mod migrate;
pub mod token;
