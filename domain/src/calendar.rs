//! Reading days. A reading day is a calendar day in the reader's time zone, from
//! local midnight to local midnight, even if it is longer or shorter than 24
//! hours.

use chrono::{NaiveDate, TimeDelta, Timelike};
use chrono_tz::Tz;

use crate::Timestamp;

/// The reading day that contains `at`.
#[must_use]
pub fn reading_day(at: Timestamp, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// The reading day and the local hour (0 to 23) that contain `at`. An hour that
/// daylight saving time repeats counts as one hour.
#[must_use]
pub fn reading_hour(at: Timestamp, zone: Tz) -> (NaiveDate, u32) {
    let local = at.with_timezone(&zone);
    (local.date_naive(), local.hour())
}

/// Splits the `active_ms` milliseconds that follow `from` by the reader's days
/// and hours, in chronological order. Hours without active time are omitted.
#[must_use]
pub fn split_by_hour(from: Timestamp, active_ms: i64, zone: Tz) -> Vec<((NaiveDate, u32), i64)> {
    split(from, active_ms, |at| reading_hour(at, zone))
}

/// Local dates and hours change only on whole minutes of UTC: in the IANA time
/// zone database, all offsets since 1972 are whole minutes. The loop therefore
/// steps from minute to minute. It needs no midnight arithmetic, which is
/// error-prone because daylight saving time can skip or repeat midnight.
fn split<K: PartialEq>(
    from: Timestamp,
    active_ms: i64,
    part: impl Fn(Timestamp) -> K,
) -> Vec<(K, i64)> {
    let end = from + TimeDelta::milliseconds(active_ms.max(0));
    let mut parts: Vec<(K, i64)> = Vec::new();
    let mut at = from;
    while at < end {
        let next = next_minute(at).min(end);
        let ms = (next - at).num_milliseconds();
        let current = part(at);
        match parts.last_mut() {
            Some((last, sum)) if *last == current => *sum += ms,
            _ => parts.push((current, ms)),
        }
        at = next;
    }
    parts
}

fn next_minute(at: Timestamp) -> Timestamp {
    const MINUTE_MS: i64 = 60_000;
    at + TimeDelta::milliseconds(MINUTE_MS - at.timestamp_millis().rem_euclid(MINUTE_MS))
}

#[cfg(test)]
mod tests;
