//! The current time. Only this module reads it; all other code takes it as a
//! parameter. `clippy.toml` enforces this.

use domain::Timestamp;

#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    chrono::Utc::now()
}
