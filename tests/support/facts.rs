//! Random histories of readers, for tests of one promise: what the API returns is a
//! function of the set of observations, in whatever order, how late and how often
//! they arrive.
//!
//! A [`Plan`] is what a reader did. [`delivery`] splits it into calls. [`expected`]
//! is a slow reference implementation: it sorts the observations and folds them, and
//! uses no code of the service. [`view`] reads the same values from the API.

pub mod call;
pub mod delivery;
pub mod expected;
pub mod plan;
pub mod view;

pub use call::{Call, Device, Seen, SyncedSession};
pub use delivery::Order;
pub use expected::Expected;
pub use plan::{Plan, PlannedSession, Shape};
pub use view::{Ids, Tolerance};
