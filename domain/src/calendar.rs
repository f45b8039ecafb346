//! Reading days: a reading day is the reader's own day, from local midnight
//! to local midnight, however long that is.

use chrono::{NaiveDate, TimeDelta, Timelike};
use chrono_tz::Tz;

use crate::Timestamp;

/// The reader's day at a moment.
#[must_use]
pub fn reading_day(at: Timestamp, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// The reader's day and hour (0 to 23) at a moment. An hour that daylight
/// saving time repeats is one hour.
#[must_use]
pub fn reading_hour(at: Timestamp, zone: Tz) -> (NaiveDate, u32) {
    let local = at.with_timezone(&zone);
    (local.date_naive(), local.hour())
}

/// Splits the `active_ms` milliseconds from `from` on over the reader's days
/// and hours, in order of time. Hours without a millisecond are left out.
#[must_use]
pub fn split_by_hour(from: Timestamp, active_ms: i64, zone: Tz) -> Vec<((NaiveDate, u32), i64)> {
    split(from, active_ms, |at| reading_hour(at, zone))
}

/// A local date or hour changes only on a whole minute of UTC (every zone's
/// offset has been whole minutes since 1972, as the IANA time zone database
/// has it), so the walk goes from minute to minute and needs no arithmetic of
/// midnights, which daylight saving time may skip or repeat.
fn split<K: PartialEq>(
    from: Timestamp,
    active_ms: i64,
    part: impl Fn(Timestamp) -> K,
) -> Vec<(K, i64)> {
    let until = from + TimeDelta::milliseconds(active_ms.max(0));
    let mut parts: Vec<(K, i64)> = Vec::new();
    let mut at = from;
    while at < until {
        let next = next_minute(at).min(until);
        let ms = (next - at).num_milliseconds();
        let here = part(at);
        match parts.last_mut() {
            Some((last, sum)) if *last == here => *sum += ms,
            _ => parts.push((here, ms)),
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
