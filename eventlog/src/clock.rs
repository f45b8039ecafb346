//! The current time, read here and nowhere else.

use domain::Timestamp;

/// The time now, to the resolution of the system's clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    chrono::Utc::now()
}
