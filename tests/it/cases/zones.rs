//! Reading days in the reader's time zone.

use super::*;

use chrono::{Days, NaiveDate};
use rstest::rstest;
use serde_json::json;
use tests::local_time::{instant, local};

/// Reads for some minutes and ends the session.
async fn read(reader: &Reader, begin: Time, length: i64, zone: Option<&str>) -> Value {
    let mut start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
    if let Some(zone) = zone {
        start["time_zone"] = json!(zone);
    }
    let started = reader.start_with(start).await;
    assert_eq!(started.status, 201, "{zone:?}: {}", started.body);
    let started = started.ok();
    let session = tests::reader::id(&started);
    let updates: Vec<Value> = (1..=length)
        .map(|minute| {
            json!({
                "session_id": session, "current_position": minute,
                "occurred_at": begin + minutes(minute),
            })
        })
        .collect();
    assert_eq!(reader.batch(json!(updates)).await.ok()["failed_count"], 0);
    let end = json!({ "occurred_at": begin + minutes(length) });
    let _ = reader.end(session, end).await.ok();
    started
}

/// The days with reading and their minutes, newest first.
async fn days(app: &App, reader: &Reader) -> Vec<(NaiveDate, i64)> {
    app.settled().await;
    let days = get(reader, "/stats/daily?days=40").await;
    let days = days["days"].as_array().unwrap().iter();
    days.map(|day| {
        let date = day["date"].as_str().unwrap().parse().unwrap();
        (date, day["active_minutes"].as_i64().unwrap())
    })
    .collect()
}

/// A past moment by its local date and time at an offset.
fn moment(days: u64, time: &str, offset_minutes: i64) -> (Time, NaiveDate) {
    let at = days_ago(days, time);
    (at - minutes(offset_minutes), at.date_naive())
}

/// The rules of these zones changed in 2026. Copies of tzdata from 2025 place some of
/// these times on another day.
#[rstest]
#[case::vancouver("America/Vancouver", "00:10:00", -7 * 60)]
#[case::edmonton("America/Edmonton", "00:10:00", -6 * 60)]
#[case::casablanca("Africa/Casablanca", "23:30:00", 0)]
#[tokio::test]
async fn reading_day_follows_the_newest_rules_of_a_zone(
    #[case] zone: &str,
    #[case] time: &str,
    #[case] offset_minutes: i64,
) {
    let app = App::start().await;
    let reader = app.reader();
    let (begin, date) = moment(2, time, offset_minutes);
    read(&reader, begin, 20, Some(zone)).await;
    assert_eq!(days(&app, &reader).await, [(date, 20)]);
    let patterns = get(&reader, "/stats/patterns").await;
    let hour: i64 = time[..2].parse().unwrap();
    assert_eq!(patterns["hours"][0]["hour"], hour, "{patterns}");
    invariants::check(&app).await;
}

#[tokio::test]
async fn session_without_a_zone_takes_the_readers_last_zone() {
    let app = App::start().await;
    // 19:00 in Los Angeles is the next day in UTC, in summer and in winter.
    let zone = "America/Los_Angeles";
    let date = days_ago(3, "12:00:00").date_naive();
    let evening = |time: &str| instant(date.and_time(time.parse().unwrap()), zone);
    let reader = app.reader();
    read(&reader, evening("19:00:00"), 5, Some(zone)).await;
    read(&reader, evening("20:00:00"), 5, None).await;
    assert_eq!(days(&app, &reader).await, [(date, 10)]);
    let streak = get(&reader, "/stats/streak").await;
    assert_eq!(streak["total_reading_days"], 1);
    assert_eq!(streak["longest"], 1);

    // A sync takes the zone of the reader's last session too.
    let reader = app.reader();
    let synced = |begin: Time, zone: Option<&str>| {
        json!({
            "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
            "ended_at": begin + minutes(5), "time_zone": zone, "observations": [
                { "current_position": 1, "occurred_at": begin + minutes(1) },
                { "current_position": 2, "occurred_at": begin + minutes(3) },
            ],
        })
    };
    for session in [
        synced(evening("19:00:00"), Some(zone)),
        synced(evening("20:00:00"), None),
    ] {
        let _ = reader.sync(json!({ "sessions": [session] })).await.ok();
    }
    assert_eq!(days(&app, &reader).await, [(date, 10)]);

    // Another zone applies from then on, and the first reading without one is in UTC.
    let reader = app.reader();
    read(&reader, evening("19:00:00"), 5, None).await;
    read(&reader, evening("20:00:00"), 5, Some(zone)).await;
    read(&reader, evening("21:00:00"), 5, None).await;
    let next = date + Days::new(1);
    assert_eq!(days(&app, &reader).await, [(next, 5), (date, 10)]);
    invariants::check(&app).await;
}

/// 22:30 UTC is 00:30 of the next day at +02:00.
#[rstest]
#[case::offset("+02:00")]
#[case::gmt("GMT+02:00")]
#[case::utc("UTC+2")]
#[case::utc_lower_case("utc+02:00")]
#[case::posix_name_with_inverted_sign("Etc/GMT-2")]
#[case::without_daylight_saving_time("Africa/Maputo")]
#[case::link("Africa/Harare")]
#[case::lower_case("africa/maputo")]
#[case::upper_case("AFRICA/JOHANNESBURG")]
#[tokio::test]
async fn zone_may_be_an_offset_a_link_or_in_any_case(#[case] zone: &str) {
    let app = App::start().await;
    let reader = app.reader();
    let begin = days_ago(3, "22:30:00");
    let started = read(&reader, begin, 10, Some(zone)).await;
    assert_eq!(started["warnings"], Value::Null, "{started}");
    let next = begin.date_naive() + Days::new(1);
    assert_eq!(days(&app, &reader).await, [(next, 10)], "{zone}");
    invariants::check(&app).await;
}

#[rstest]
#[case::half_an_hour("+05:30", "18:40:00", 1)]
#[case::west("UTC-03:30", "03:00:00", -1)]
#[case::far_east("+14:00", "10:30:00", 1)]
#[case::berlin_in_lower_case("europe/berlin", "23:30:00", 1)]
#[case::old_name("US/Hawaii", "09:00:00", -1)]
#[tokio::test]
async fn local_day_of_other_zones(#[case] zone: &str, #[case] time: &str, #[case] days_later: i64) {
    let app = App::start().await;
    let reader = app.reader();
    let begin = days_ago(3, time);
    read(&reader, begin, 10, Some(zone)).await;
    let date = begin.date_naive() + TimeDelta::days(days_later);
    assert_eq!(days(&app, &reader).await, [(date, 10)], "{zone}");
}

#[rstest]
#[case::unknown("Etc/Unknown")]
#[case::empty("")]
#[case::mars("Mars/Olympus_Mons")]
#[case::impossible_offset("+25:00")]
#[case::abbreviation("XYZ")]
#[case::long("America/Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch")]
#[case::not_ascii("Европа/Берлин")]
#[case::path("../../etc/passwd")]
#[tokio::test]
async fn unknown_zone_is_ignored_with_a_warning(#[case] zone: &str) {
    let app = App::start().await;
    let reader = app.reader();
    let begin = days_ago(3, "22:30:00");
    let started = read(&reader, begin, 10, Some(zone)).await;
    let warnings = started["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{started}");
    assert_eq!(warnings[0]["field"], "time_zone");
    for text in ["code", "message"] {
        assert!(!warnings[0][text].as_str().unwrap().is_empty());
    }
    assert_eq!(
        days(&app, &reader).await,
        [(begin.date_naive(), 10)],
        "{zone}"
    );

    // A known zone of the reader applies instead of UTC.
    let reader = app.reader();
    read(&reader, begin - minutes(60), 10, Some("+02:00")).await;
    read(&reader, begin, 10, Some(zone)).await;
    let expected = [
        (begin.date_naive() + Days::new(1), 10),
        (begin.date_naive(), 10),
    ];
    assert_eq!(days(&app, &reader).await, expected, "{zone}");
    invariants::check(&app).await;
}

/// A zone whose clocks changed within the last four weeks, with the moment.
fn recent_change() -> Option<(&'static str, Time)> {
    const ZONES: [&str; 4] = [
        "Europe/Berlin",
        "America/New_York",
        "Australia/Sydney",
        "Asia/Jerusalem",
    ];
    let today = days_ago(0, "00:00:00");
    let mut hours = (2 * 24..28 * 24).map(|hours| today - TimeDelta::hours(hours));
    let offset = |zone: &str, at: Time| local(at, zone) - at.naive_utc();
    hours.find_map(|at| {
        let before = at - TimeDelta::hours(1);
        let changed = |zone: &&str| offset(zone, before) != offset(zone, at);
        ZONES.into_iter().find(changed).map(|zone| (zone, at))
    })
}

/// Clocks do not change in every month, so this test has nothing to do in some.
#[tokio::test]
async fn change_of_the_clocks_neither_adds_nor_removes_time() {
    let Some((zone, change)) = recent_change() else {
        println!("no zone changed its clocks in the last four weeks");
        return;
    };
    println!("{zone} changed its clocks at {change}");
    let app = App::start().await;
    let begin = change - minutes(40);
    let plan = Plan {
        sessions: vec![PlannedSession {
            zone,
            ..ended(session(begin, 0, 1..=80), begin + minutes(80))
        }],
    };
    let own = [
        Call::Start(0),
        batch(0, 0..40),
        batch(0, 40..80),
        Call::End(0),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        let expected = json!({ "active_seconds": 4_800, "duration_minutes": 80 });
        told.assert(0, expected).await;
        let days = get(&told.reader, "/stats/daily?days=60").await;
        assert_eq!(total(&days, "days", "active_seconds"), 4_800);
        assert_eq!(total(&days, "days", "active_minutes"), 80);
        let patterns = get(&told.reader, "/stats/patterns?days=60").await;
        assert_eq!(total(&patterns, "hours", "active_minutes"), 80);
        assert_eq!(total(&patterns, "weekdays", "active_minutes"), 80);
    })
    .await;
}

/// Today is the day of the session that was active last.
#[tokio::test]
async fn today_is_the_day_in_the_zone_of_the_latest_activity() {
    let app = App::start().await;
    let reader = app.reader();
    // Their local dates always differ.
    let (east, west) = ("Pacific/Kiritimati", "Pacific/Midway");
    let at = |minutes_before: i64| minutes_ago(minutes_before);
    let today = async |expected_zone: &str| {
        loop {
            let today = || local(clock::now(), expected_zone).date().to_string();
            let before = today();
            app.settled().await;
            let week = get(&reader, "/stats/weekly").await;
            if today() == before {
                assert_eq!(week["days"][0]["date"], before, "in {expected_zone}");
                return;
            }
        }
    };
    read(&reader, at(60), 5, Some(east)).await;
    today(east).await;
    read(&reader, at(30), 5, Some(west)).await;
    today(west).await;
    // An older session that arrives later does not change it.
    read(&reader, at(90), 5, Some(east)).await;
    today(west).await;
    read(&reader, at(10), 5, Some(east)).await;
    today(east).await;
}
