//! Reading days. A reading day is a calendar day in the reader's time zone, from
//! local midnight to local midnight, even if it is longer or shorter than 24
//! hours.

use chrono::{NaiveDate, NaiveDateTime, TimeDelta, Timelike};
use jiff::tz::TimeZone;

use crate::Timestamp;

/// The reading day that contains `at`.
#[must_use]
pub fn reading_day(at: Timestamp, zone: &TimeZone) -> NaiveDate {
    local(at, offset_seconds(at, zone)).date()
}

/// The reading day and the local hour (0 to 23) that contain `at`. An hour that
/// daylight saving time repeats counts as one hour.
#[must_use]
pub fn reading_hour(at: Timestamp, zone: &TimeZone) -> (NaiveDate, u32) {
    let local = local(at, offset_seconds(at, zone));
    (local.date(), local.hour())
}

/// Splits the `active_ms` milliseconds that follow `from` by the reader's days, in
/// chronological order: the day, and the start and end of the part. Local time can
/// return to an earlier day; that day then occurs twice.
#[must_use]
pub fn split_by_day(
    from: Timestamp,
    active_ms: i64,
    zone: &TimeZone,
) -> Vec<(NaiveDate, Timestamp, Timestamp)> {
    split(from, active_ms, zone, |local| local.date())
}

/// Like [`split_by_day`], by day and hour. An hour can occur twice too.
#[must_use]
pub fn split_by_hour(
    from: Timestamp,
    active_ms: i64,
    zone: &TimeZone,
) -> Vec<((NaiveDate, u32), Timestamp, Timestamp)> {
    split(from, active_ms, zone, |local| (local.date(), local.hour()))
}

/// Local dates and hours change at whole local hours, and when the offset from UTC
/// changes. Offsets change only on whole minutes of UTC, in the IANA time zone database
/// since 1972. The loop steps from local hour to local hour, and from minute to minute
/// where the offset changes. It needs no midnight arithmetic, which is error-prone
/// because daylight saving time can skip or repeat midnight.
fn split<K: PartialEq>(
    from: Timestamp,
    active_ms: i64,
    zone: &TimeZone,
    part: impl Fn(NaiveDateTime) -> K,
) -> Vec<(K, Timestamp, Timestamp)> {
    let end = from + TimeDelta::milliseconds(active_ms.max(0));
    let mut parts: Vec<(K, Timestamp, Timestamp)> = Vec::new();
    let mut at = from;
    let mut offset = offset_seconds(at, zone);
    while at < end {
        let mut next = next_multiple(at, offset, HOUR_MS).min(end);
        let mut next_offset = offset_seconds(next, zone);
        if next_offset != offset {
            next = next_multiple(at, 0, MINUTE_MS).min(end);
            next_offset = offset_seconds(next, zone);
        }
        let current = part(local(at, offset));
        match parts.last_mut() {
            Some((last, _, to)) if *last == current => *to = next,
            _ => parts.push((current, at, next)),
        }
        at = next;
        offset = next_offset;
    }
    parts
}

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// The next whole multiple of `ms` after `at`, in local time at the given offset.
fn next_multiple(at: Timestamp, offset_seconds: i32, ms: i64) -> Timestamp {
    let local_ms = at.timestamp_millis() + i64::from(offset_seconds) * 1_000;
    at + TimeDelta::milliseconds(ms - local_ms.rem_euclid(ms))
}

fn local(at: Timestamp, offset_seconds: i32) -> NaiveDateTime {
    at.naive_utc() + TimeDelta::seconds(offset_seconds.into())
}

/// The offset from UTC, positive east of Greenwich.
fn offset_seconds(at: Timestamp, zone: &TimeZone) -> i32 {
    let at = jiff::Timestamp::from_millisecond(at.timestamp_millis())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    zone.to_offset(at).seconds()
}

#[cfg(test)]
mod tests;
