//! Turns requests into values: every input is parsed here, once. A [`Problem`]
//! names the field of an invalid input. This never decides what a caller may do.

mod context;
mod field_error;
pub mod hints;
pub mod item;
mod json;
mod path;
mod query;
mod strict;
mod values;

pub use context::RequestContext;
pub use hints::Hint;
pub use json::{Json, JsonObject, body_problem};
pub use path::{Named, PathName, ReaderPath, SessionPath};
pub use query::{MinPositionParams, Query};
pub use strict::{NoBody, NoInput, StrictQuery};
pub use values::{Percent, WholeSeconds};

use crate::problem::Problem;
