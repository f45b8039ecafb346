//! Commands of client apps, one a file.

pub mod batch_update;
pub mod end;
pub mod start;
pub mod update;

/// The longest locator, in characters.
const MAX_LOCATOR: usize = 2_048;
