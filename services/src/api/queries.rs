//! Queries of client apps, one a file.

pub mod active;
pub mod daily;
pub mod history;
pub mod session;
