//! The commands of client apps, one file per endpoint.

pub mod batch_update;
pub mod end;
pub mod start;
pub mod update;

/// The maximum length of a locator, in characters.
pub(crate) const MAX_LOCATOR: usize = 2_048;
