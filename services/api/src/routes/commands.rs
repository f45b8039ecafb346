//! The commands of client apps, one file per endpoint.

pub mod batch_update;
pub mod correct;
pub mod end;
pub mod start;
pub mod sync;
pub mod update;
