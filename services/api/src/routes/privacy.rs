//! Readers export all of their data and have it erased.

pub mod delete;
pub mod erase;
pub mod export;
