//! How long the jobs keep things.

use std::time::Duration;

use chrono::Days;

/// Limits that the jobs enforce.
#[derive(Clone, Debug)]
pub struct JobSettings {
    /// A session without a recorded event for this long is ended.
    pub idle_after: Duration,
    /// Age at which a month leaves the history; `None` keeps all months.
    pub retention: Option<Days>,
    /// Age at which a day leaves the statistics; `None` keeps all days.
    pub statistics: Option<Days>,
    /// Age at which an idempotency key is deleted.
    pub idempotency_keys: Days,
}
