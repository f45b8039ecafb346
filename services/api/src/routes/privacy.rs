//! Readers export all of their data and have it erased.

pub mod erase;
pub mod export;
