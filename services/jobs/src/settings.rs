//! The settings of the jobs.

use std::time::Duration;

use chrono::Days;

#[derive(Clone, Debug)]
pub struct JobSettings {
    /// A session without a recorded event for this long is ended. At most a day.
    pub idle_after: Duration,
    /// Age at which a month is removed from the history; `None` keeps all months.
    pub retention: Option<Days>,
    /// Age at which a day is removed from the statistics; `None` keeps all days.
    pub statistics: Option<Days>,
    /// Age at which an idempotency key is deleted.
    pub idempotency_keys: Days,
}
