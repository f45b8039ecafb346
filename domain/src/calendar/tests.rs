//! Reading days in real time zones: shorter and longer days, days without a
//! midnight, repeated days and a skipped day.

use jiff::tz::{Offset, TimeZone};
use proptest::prelude::*;
use proptest::sample::select;
use rstest::rstest;

use super::*;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

fn zone(name: &str) -> TimeZone {
    jiff::tz::db().get(name).unwrap()
}

/// The lengths of the parts in milliseconds.
fn lengths<K>(parts: Vec<(K, Timestamp, Timestamp)>) -> Vec<(K, i64)> {
    let length = |(key, from, to): (K, Timestamp, Timestamp)| (key, (to - from).num_milliseconds());
    parts.into_iter().map(length).collect()
}

fn day_lengths(from: Timestamp, active_ms: i64, zone: &TimeZone) -> Vec<(NaiveDate, i64)> {
    lengths(split_by_day(from, active_ms, zone))
}

fn utc(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[rstest]
#[case::before_midnight("Europe/Berlin", "2024-01-10T22:59:59.999Z", "2024-01-10")]
#[case::at_midnight("Europe/Berlin", "2024-01-10T23:00:00Z", "2024-01-11")]
#[case::in_summer("Europe/Berlin", "2024-07-10T22:00:00Z", "2024-07-11")]
#[case::western_offset("America/New_York", "2024-01-10T04:59:59.999Z", "2024-01-09")]
#[case::far_eastern_offset("Pacific/Kiritimati", "2024-01-10T10:00:00Z", "2024-01-11")]
#[case::offset_with_quarter_hour("Asia/Kathmandu", "2024-01-10T18:15:00Z", "2024-01-11")]
#[case::before_1970("UTC", "1969-12-31T23:59:59.999Z", "1969-12-31")]
fn reading_day_is_the_local_date(#[case] name: &str, #[case] at: &str, #[case] day: NaiveDate) {
    assert_eq!(reading_day(utc(at), &zone(name)), day);
}

#[rstest]
#[case::zero("UTC", "2024-05-01T12:00:00Z", 0, &[])]
#[case::negative("UTC", "2024-05-01T12:00:00Z", -1, &[])]
#[case::one_millisecond("UTC", "2024-05-01T12:00:00.999Z", 1, &[("2024-05-01", 1)])]
#[case::across_midnight("UTC", "2024-05-01T23:59:59.999Z", 2, &[("2024-05-01", 1), ("2024-05-02", 1)])]
#[case::until_midnight("UTC", "2024-05-01T23:59:00Z", MINUTE, &[("2024-05-01", MINUTE)])]
#[case::from_midnight("UTC", "2024-05-02T00:00:00Z", MINUTE, &[("2024-05-02", MINUTE)])]
#[case::a_leap_day("UTC", "2024-02-28T23:00:00Z", 26 * HOUR,
    &[("2024-02-28", HOUR), ("2024-02-29", 24 * HOUR), ("2024-03-01", HOUR)])]
#[case::three_days("UTC", "2024-05-01T18:00:00Z", 36 * HOUR,
    &[("2024-05-01", 6 * HOUR), ("2024-05-02", 24 * HOUR), ("2024-05-03", 6 * HOUR)])]
#[case::kathmandu("Asia/Kathmandu", "2024-05-01T18:14:00Z", 2 * MINUTE,
    &[("2024-05-01", MINUTE), ("2024-05-02", MINUTE)])]
#[case::berlin_spring("Europe/Berlin", "2024-03-30T22:00:00Z", 25 * HOUR,
    &[("2024-03-30", HOUR), ("2024-03-31", 23 * HOUR), ("2024-04-01", HOUR)])]
#[case::berlin_autumn("Europe/Berlin", "2024-10-26T21:00:00Z", 27 * HOUR,
    &[("2024-10-26", HOUR), ("2024-10-27", 25 * HOUR), ("2024-10-28", HOUR)])]
#[case::new_york_spring("America/New_York", "2024-03-10T04:00:00Z", 25 * HOUR,
    &[("2024-03-09", HOUR), ("2024-03-10", 23 * HOUR), ("2024-03-11", HOUR)])]
#[case::new_york_autumn("America/New_York", "2024-11-03T03:00:00Z", 27 * HOUR,
    &[("2024-11-02", HOUR), ("2024-11-03", 25 * HOUR), ("2024-11-04", HOUR)])]
#[case::lord_howe_spring_by_half_an_hour("Australia/Lord_Howe", "2024-10-05T12:30:00Z", 25 * HOUR,
    &[("2024-10-05", HOUR), ("2024-10-06", 23 * HOUR + 30 * MINUTE), ("2024-10-07", 30 * MINUTE)])]
#[case::lord_howe_autumn_by_half_an_hour("Australia/Lord_Howe", "2024-04-06T12:00:00Z", 26 * HOUR,
    &[("2024-04-06", HOUR), ("2024-04-07", 24 * HOUR + 30 * MINUTE), ("2024-04-08", 30 * MINUTE)])]
#[case::sao_paulo_without_midnight("America/Sao_Paulo", "2018-11-04T02:00:00Z", 25 * HOUR,
    &[("2018-11-03", HOUR), ("2018-11-04", 23 * HOUR), ("2018-11-05", HOUR)])]
#[case::sao_paulo_with_two_elevens("America/Sao_Paulo", "2018-02-17T01:00:00Z", 27 * HOUR,
    &[("2018-02-16", HOUR), ("2018-02-17", 25 * HOUR), ("2018-02-18", HOUR)])]
#[case::cairo_without_midnight("Africa/Cairo", "2023-04-27T21:59:59.999Z", 2,
    &[("2023-04-27", 1), ("2023-04-28", 1)])]
#[case::cairo_with_two_elevens("Africa/Cairo", "2023-10-25T20:00:00Z", 27 * HOUR,
    &[("2023-10-25", HOUR), ("2023-10-26", 25 * HOUR), ("2023-10-27", HOUR)])]
#[case::beirut_without_midnight("Asia/Beirut", "2022-03-26T21:00:00Z", 25 * HOUR,
    &[("2022-03-26", HOUR), ("2022-03-27", 23 * HOUR), ("2022-03-28", HOUR)])]
#[case::havana_without_midnight("America/Havana", "2024-03-10T04:00:00Z", 25 * HOUR,
    &[("2024-03-09", HOUR), ("2024-03-10", 23 * HOUR), ("2024-03-11", HOUR)])]
#[case::havana_with_two_midnights("America/Havana", "2024-11-03T03:00:00Z", 27 * HOUR,
    &[("2024-11-02", HOUR), ("2024-11-03", 25 * HOUR), ("2024-11-04", HOUR)])]
#[case::apia_with_a_skipped_day("Pacific/Apia", "2011-12-30T09:00:00Z", 26 * HOUR,
    &[("2011-12-29", HOUR), ("2011-12-31", 24 * HOUR), ("2012-01-01", HOUR)])]
#[case::st_johns_spring_at_one_past_midnight("America/St_Johns", "2010-03-14T03:29:00Z", 3 * MINUTE,
    &[("2010-03-13", MINUTE), ("2010-03-14", 2 * MINUTE)])]
#[case::st_johns_with_a_returning_date("America/St_Johns", "2010-11-07T02:29:00Z", 62 * MINUTE,
    &[("2010-11-06", MINUTE), ("2010-11-07", MINUTE), ("2010-11-06", 59 * MINUTE), ("2010-11-07", MINUTE)])]
fn active_time_is_split_by_local_day(
    #[case] name: &str,
    #[case] from: &str,
    #[case] active_ms: i64,
    #[case] days: &[(&str, i64)],
) {
    let days: Vec<(NaiveDate, i64)> = days
        .iter()
        .map(|(day, ms)| (day.parse().unwrap(), *ms))
        .collect();
    assert_eq!(day_lengths(utc(from), active_ms, &zone(name)), days);
}

/// Zones in which no past date returns between 1975 and 2037.
const MONOTONIC_ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
];

fn zones() -> impl Strategy<Value = TimeZone> {
    select([&MONOTONIC_ZONES[..], &["America/St_Johns"]].concat()).prop_map(zone)
}

fn instants() -> impl Strategy<Value = Timestamp> {
    let years = utc("1975-01-01T00:00:00Z").timestamp_millis()
        ..utc("2037-01-01T00:00:00Z").timestamp_millis();
    years.prop_map(|ms| Timestamp::from_timestamp_millis(ms).unwrap())
}

/// The zone's next change of offset within about 400 days, to the second.
fn next_offset_change(at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let offset = |at: Timestamp| offset_seconds(at, zone);
    let day = TimeDelta::days(1);
    let mut before = (0..400)
        .map(|days| at + TimeDelta::days(days))
        .find(|at| offset(*at) != offset(*at + day))?;
    let mut after = before + day;
    while after - before > TimeDelta::seconds(1) {
        let middle = before + (after - before) / 2;
        if offset(middle) == offset(before) {
            before = middle;
        } else {
            after = middle;
        }
    }
    Some(after)
}

/// Spans of up to three hours, at any time or around a change of offset.
fn spans() -> impl Strategy<Value = (Timestamp, i64, TimeZone)> {
    (zones(), instants(), any::<bool>(), 0..2 * HOUR, 0..3 * HOUR).prop_map(
        |(zone, at, around_a_change, lead_ms, active_ms)| {
            let change = next_offset_change(at, &zone).filter(|_| around_a_change);
            let from = change.map_or(at, |change| change - TimeDelta::milliseconds(lead_ms));
            (from, active_ms, zone)
        },
    )
}

/// Splits with a loop over all seconds.
fn split_by_second<K: PartialEq>(
    from: Timestamp,
    active_ms: i64,
    part: impl Fn(Timestamp) -> K,
) -> Vec<(K, i64)> {
    let start = from.timestamp_millis();
    let end = start + active_ms;
    let mut parts: Vec<(K, i64)> = Vec::new();
    for second in start.div_euclid(SECOND)..=end.div_euclid(SECOND) {
        let ms = end.min((second + 1) * SECOND) - start.max(second * SECOND);
        if ms == 0 {
            continue;
        }
        let key = part(Timestamp::from_timestamp(second, 0).unwrap());
        match parts.last_mut() {
            Some((last, sum)) if *last == key => *sum += ms,
            _ => parts.push((key, ms)),
        }
    }
    parts
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn split_equals_a_loop_over_all_seconds((from, active_ms, zone) in spans()) {
        prop_assert_eq!(
            day_lengths(from, active_ms, &zone),
            split_by_second(from, active_ms, |at| reading_day(at, &zone))
        );
        prop_assert_eq!(
            lengths(split_by_hour(from, active_ms, &zone)),
            split_by_second(from, active_ms, |at| reading_hour(at, &zone))
        );
    }
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn split_parts_follow_each_other_and_fill_the_time(
        zone in zones(),
        from in instants(),
        active_ms in 0..80 * HOUR,
    ) {
        let parts = split_by_day(from, active_ms, &zone);
        let end = from + TimeDelta::milliseconds(active_ms);
        prop_assert_eq!(parts.first().map_or(end, |first| first.1), from);
        prop_assert_eq!(parts.last().map_or(from, |last| last.2), end);
        prop_assert!(parts.windows(2).all(|pair| pair[0].2 == pair[1].1));
        prop_assert!(parts.windows(2).all(|pair| pair[0].0 != pair[1].0));
        prop_assert!(parts.iter().all(|(day, from, _)| *day == reading_day(*from, &zone)));
        let days = lengths(parts);
        prop_assert!(days.iter().all(|(_, ms)| (1..=25 * HOUR).contains(ms)));
    }

    #[test]
    fn days_are_in_order_where_no_date_returns(
        name in select(MONOTONIC_ZONES.to_vec()),
        from in instants(),
        active_ms in 0..80 * HOUR,
    ) {
        let days = split_by_day(from, active_ms, &zone(name));
        prop_assert!(days.is_sorted_by(|earlier, later| earlier.0 < later.0));
    }

    #[test]
    fn splitting_in_two_steps_gives_the_same_days(
        (from, active_ms, zone) in spans(),
        cut in 0.0..1.0_f64,
    ) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "any cut will do"
        )]
        let first_ms = (active_ms as f64 * cut) as i64;
        let middle = from + TimeDelta::milliseconds(first_ms);
        let mut days = day_lengths(from, first_ms, &zone);
        for (day, ms) in day_lengths(middle, active_ms - first_ms, &zone) {
            match days.last_mut() {
                Some((last, sum)) if *last == day => *sum += ms,
                _ => days.push((day, ms)),
            }
        }
        prop_assert_eq!(days, day_lengths(from, active_ms, &zone));
    }
}

#[rstest]
#[case::over_the_hour("UTC", "2024-05-01T09:59:00Z", 3 * MINUTE,
    &[("2024-05-01", 9, MINUTE), ("2024-05-01", 10, 2 * MINUTE)])]
#[case::offset_with_quarter_hour("Asia/Kathmandu", "2024-05-01T18:14:00Z", 2 * MINUTE,
    &[("2024-05-01", 23, MINUTE), ("2024-05-02", 0, MINUTE)])]
#[case::skipped_hour("Europe/Berlin", "2024-03-31T00:59:00Z", 2 * MINUTE,
    &[("2024-03-31", 1, MINUTE), ("2024-03-31", 3, MINUTE)])]
#[case::repeated_hour("Europe/Berlin", "2024-10-27T00:30:00Z", HOUR,
    &[("2024-10-27", 2, HOUR)])]
fn active_time_is_split_by_local_hour(
    #[case] name: &str,
    #[case] from: &str,
    #[case] active_ms: i64,
    #[case] expected: &[(&str, u32, i64)],
) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(day, hour, ms)| ((day.parse().unwrap(), *hour), *ms))
        .collect();
    assert_eq!(
        lengths(split_by_hour(utc(from), active_ms, &zone(name))),
        expected
    );
}

#[test]
fn fixed_offset_has_the_same_days_all_year() {
    let zone = TimeZone::fixed(Offset::from_seconds(-(9 * 3_600 + 1_800)).unwrap());
    for (at, hour) in [
        ("2024-01-10T09:29:59.999Z", 23),
        ("2024-07-10T09:30:00Z", 0),
    ] {
        let (day, local_hour) = reading_hour(utc(at), &zone);
        assert_eq!(local_hour, hour);
        assert_eq!(day, reading_day(utc(at), &zone));
    }
    let from = utc("2024-07-10T09:29:00Z");
    let days = split_by_day(from, 2 * MINUTE, &zone);
    let midnight = utc("2024-07-10T09:30:00Z");
    let end = utc("2024-07-10T09:31:00Z");
    let day = |text: &str| text.parse::<NaiveDate>().unwrap();
    assert_eq!(
        days,
        [
            (day("2024-07-09"), from, midnight),
            (day("2024-07-10"), midnight, end),
        ]
    );
}
