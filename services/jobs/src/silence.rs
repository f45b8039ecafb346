//! Detects that no process runs jobs.

use std::time::Duration;

use domain::Timestamp;

/// Some jobs run every minute, so jobs run nowhere if none has completed a run for this
/// long.
const MAX_SILENCE: Duration = Duration::from_hours(1);

/// Why jobs count as not running; `None` if they run. `last_run` is the end of the last
/// run of any job in any process, and `None` if there was none.
#[must_use]
pub fn silence(last_run: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let Some(last_run) = last_run else {
        return Some("no process has completed a run of a job yet".to_owned());
    };
    let silence = (now - last_run).to_std().unwrap_or_default();
    (silence > MAX_SILENCE).then(|| {
        format!(
            "no process has completed a run of a job for {} min",
            silence.as_secs() / 60
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_without_a_run_is_a_failure() {
        let now: Timestamp = "2026-03-29T12:00:00Z".parse().unwrap();
        let after = |minutes| silence(Some(now - Duration::from_mins(minutes)), now);
        assert_eq!(after(0), None);
        assert_eq!(after(60), None);
        let reason = after(61).unwrap();
        assert!(reason.ends_with("for 61 min"), "{reason}");
        assert!(silence(None, now).is_some());
        let future = Some(now + Duration::from_mins(1));
        assert_eq!(silence(future, now), None);
    }
}
