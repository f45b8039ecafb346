//! Queries for history and statistics: pages, and `min_position`, which makes a
//! response include the reader's own writes.

use std::collections::BTreeSet;

use chrono::{Days, TimeDelta, Timelike};
use eventlog::clock;
use reqwest::Method;
use serde_json::{Value, json};
use server::config::Role;
use tests::reader::id;
use tests::{ApiResponse, App, Reader};
use uuid::Uuid;

fn global_position(response: &ApiResponse) -> i64 {
    response.header("x-global-position").parse().unwrap()
}

async fn get(reader: &Reader, path: &str) -> ApiResponse {
    reader.call(Method::GET, path, None).await
}

async fn with_sessions(app: &App, count: usize) -> (Reader, Vec<Uuid>) {
    let reader = app.reader();
    let mut newest_first = Vec::new();
    let mut last = 0;
    for _ in 0..count {
        let started = reader.start(Uuid::new_v4()).await;
        last = global_position(&started);
        newest_first.insert(0, id(&started.ok()));
    }
    let response = reader.history(&format!("?min_position={last}")).await;
    assert_eq!(response.status, 200);
    (reader, newest_first)
}

fn ids(page: &Value) -> Vec<Uuid> {
    page["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(id)
        .collect()
}

#[tokio::test]
async fn numbered_pages_return_totals_and_next_links() {
    let app = App::start().await;
    let (reader, all) = with_sessions(&app, 5).await;
    let mut seen = Vec::new();
    for (page, has_next) in [(1, true), (2, true), (3, false)] {
        let response = reader.history(&format!("?page={page}&limit=2")).await;
        let link = response.header("link").to_owned();
        let body = response.ok();
        assert_eq!(body["page"], page);
        assert_eq!(body["page_size"], 2);
        assert_eq!(body["total"], 5);
        assert_eq!(body["has_next"], has_next);
        let next = format!("page={}&page_size=2>; rel=\"next\"", page + 1);
        assert_eq!(link.ends_with(&next), has_next, "{link}");
        seen.extend(ids(&body));
    }
    assert_eq!(seen, all);
    let beyond = reader.history("?page=9").await.ok();
    assert_eq!(beyond["sessions"], json!([]));
    for invalid in ["?page=0", "?page=1001", "?page=-1", "?page=x"] {
        let response = reader.history(invalid).await;
        assert_eq!(response.body["errors"][0]["field"], "page", "{invalid}");
        let _ = response.problem(422);
    }
}

#[tokio::test]
async fn next_links_return_each_session_once_while_history_grows() {
    let app = App::start().await;
    let (reader, all) = with_sessions(&app, 7).await;
    let mut seen = Vec::new();
    let mut query = "?page_size=3".to_owned();
    loop {
        let response = reader.history(&query).await;
        let link = response.header("link").to_owned();
        let body = response.ok();
        seen.extend(ids(&body));
        assert_eq!(body["page"], Value::Null);
        let Some(next) = link.strip_suffix(">; rel=\"next\"") else {
            assert_eq!(body["next_cursor"], Value::Null);
            break;
        };
        query = next[next.find('?').unwrap()..].to_owned();
        let _ = reader.start(Uuid::new_v4()).await.ok();
    }
    assert_eq!(seen, all);
}

#[tokio::test]
async fn cursor_overrides_page_and_is_valid_only_for_its_list() {
    let app = App::start().await;
    let (reader, all) = with_sessions(&app, 3).await;
    let first = reader.history("?page_size=1").await.ok();
    let cursor = first["next_cursor"].as_str().unwrap();
    let query = format!("?cursor={cursor}&page=3&page_size=1");
    let second = reader.history(&query).await.ok();
    assert_eq!(ids(&second), all[1..2]);
    assert_eq!(second["page"], Value::Null);

    let book = Uuid::new_v4();
    let other_reader = app.reader().history(&format!("?cursor={cursor}")).await;
    assert_eq!(other_reader.problem_code(400), "invalid_cursor");
    let query = format!("?cursor={cursor}&book_id={book}");
    let filtered = reader.history(&query).await;
    assert_eq!(filtered.problem_code(400), "invalid_cursor");
}

#[tokio::test]
async fn min_position_returns_the_preceding_write() {
    let app = App::start().await;
    let reader = app.reader();
    for n in 1..=20 {
        let started = reader.start(Uuid::new_v4()).await;
        let at = global_position(&started);
        let session = id(&started.ok());
        for path in [
            format!("/history?min_position={at}&page_size=1"),
            format!("/active?min_position={at}"),
            format!("/{session}?min_position={at}"),
        ] {
            let response = get(&reader, &path).await.ok();
            let shown = response.get("sessions").map_or(&response, |all| &all[0]);
            assert_eq!(id(shown), session, "{path}");
        }
        let days = format!("/stats/daily?min_position={at}");
        assert_eq!(get(&reader, &days).await.ok()["days"][0]["sessions"], n);
    }
}

#[tokio::test]
async fn unreached_min_position_returns_504() {
    let app = App::start().await;
    let reader = app.reader();
    let started = reader.start(Uuid::new_v4()).await;
    let beyond = global_position(&started) + 1_000;
    let (stack, env) = (app.stack.clone(), app.env.clone());
    app.stop().await;
    // Without projections, no query reaches the position.
    let settings = tests::app::settings(&env, &[Role::Api]);
    let app = App::run(stack, env, &settings).await;
    let reader = app.reader_with_id(reader.id);
    let paths = ["/history", "/active", "/stats/daily", "/stats/weekly"];
    let responses = paths.map(|path| {
        let reader = reader.clone();
        async move { get(&reader, &format!("{path}?min_position={beyond}")).await }
    });
    for response in futures::future::join_all(responses).await {
        assert_eq!(response.header("retry-after"), "1");
        assert_eq!(response.problem_code(504), "read_model_behind");
    }
    for invalid in ["x", "", "1.5"] {
        let response = get(&reader, &format!("/active?min_position={invalid}")).await;
        assert_eq!(response.body["errors"][0]["field"], "min_position");
        let _ = response.problem(422);
    }
}

/// A zone where it is about noon now, so that no reading crosses midnight.
fn zone_at_noon() -> String {
    match i64::from(clock::now().hour()) - 12 {
        0 => "Etc/GMT".to_owned(),
        // The sign in these names is inverted: Etc/GMT+1 is west of Greenwich.
        west => format!("Etc/GMT{west:+}"),
    }
}

/// Reads for `minutes`, `days` ago, at the current time of day in a zone where it is
/// noon.
async fn read(reader: &Reader, days: i64, minutes: i64) {
    let start = clock::now() - TimeDelta::days(days) - TimeDelta::minutes(minutes);
    let body =
        json!({ "book_id": Uuid::new_v4(), "occurred_at": start, "time_zone": zone_at_noon() });
    let session = id(&reader.start_with(body).await.ok());
    for minute in 1..=minutes {
        let body = json!({
            "current_position": minute,
            "occurred_at": start + TimeDelta::minutes(minute),
        });
        let _ = reader.update_with(session, body).await.ok();
    }
    let end = start + TimeDelta::minutes(minutes);
    let body = json!({ "occurred_at": end });
    let _ = reader.end(session, body).await.ok();
}

#[tokio::test]
async fn weekly_stats_return_seven_days_from_today_backwards() {
    let app = App::start().await;
    let reader = app.reader();
    let today = clock::now().date_naive();
    let empty = get(&reader, "/stats/weekly").await.ok();
    assert_eq!(empty["days"].as_array().unwrap().len(), 7);
    assert_eq!(empty["days"][0]["date"], today.to_string());

    read(&reader, 0, 1).await;
    app.settled().await;
    let week = get(&reader, "/stats/weekly").await.ok();
    let dates: Vec<_> = week["days"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| &day["date"])
        .collect();
    let expected = (0..7).map(|ago| json!((today - Days::new(ago)).to_string()));
    assert!(dates.into_iter().cloned().eq(expected));
    let minutes = |day: &Value| day["minutes"].as_i64().unwrap();
    let sum: i64 = week["days"].as_array().unwrap().iter().map(minutes).sum();
    assert_eq!(sum, 1);

    let names = async |language: &'static str| {
        let headers = [("accept-language", language)];
        let week = reader
            .call_with(Method::GET, "/stats/weekly", &headers, None)
            .await
            .ok();
        let days = week["days"].as_array().unwrap().clone();
        let names = days
            .iter()
            .map(|day| day["day"].as_str().unwrap().to_owned());
        names.collect::<BTreeSet<_>>()
    };
    assert!(names("en").await.contains("Mon"));
    assert!(names("ru-RU,ru;q=0.9").await.contains("Пн"));
}

#[tokio::test]
async fn streak_counts_consecutive_days_with_a_minute_of_reading() {
    let app = App::start().await;
    let reader = app.reader();
    let none = get(&reader, "/stats/streak?days=10").await.ok();
    assert_eq!(
        none,
        json!({ "current": 0, "longest": 0, "total_reading_days": 0, "days_without_reading": 10 })
    );
    for days in [6, 5, 4, 2, 1] {
        read(&reader, days, 3).await;
    }
    app.settled().await;
    let streak = get(&reader, "/stats/streak?days=10").await.ok();
    assert_eq!(
        streak,
        json!({ "current": 2, "longest": 3, "total_reading_days": 5, "days_without_reading": 5 })
    );
}

#[tokio::test]
async fn patterns_sum_active_time_by_weekday_and_hour() {
    let app = App::start().await;
    let reader = app.reader();
    read(&reader, 1, 3).await;
    read(&reader, 8, 3).await;
    app.settled().await;
    let patterns = get(&reader, "/stats/patterns?days=30").await.ok();
    assert_eq!(patterns["weekdays"].as_array().unwrap().len(), 7);
    let sum = |list: &str, field: &str| {
        let list = patterns[list].as_array().unwrap();
        list.iter()
            .map(|part| part[field].as_i64().unwrap())
            .sum::<i64>()
    };
    assert_eq!(sum("weekdays", "active_minutes"), 6);
    assert_eq!(sum("hours", "active_minutes"), 6);
    assert_eq!(sum("weekdays", "active_seconds"), 360);
    assert_eq!(sum("hours", "active_seconds"), 360);
    assert_eq!(sum("weekdays", "sessions"), 2);
    let week = get(&reader, "/stats/patterns?days=3").await.ok();
    assert_ne!(week, patterns);
}

#[tokio::test]
async fn every_view_of_the_same_time_has_the_same_total() {
    let app = App::start().await;
    let reader = app.reader();
    // Noon yesterday in UTC, so that all twelve sessions are on one day.
    let noon = (clock::now() - TimeDelta::days(1)).date_naive();
    let noon = noon.and_hms_opt(12, 0, 0).unwrap().and_utc();
    for hour in -6..6 {
        let start = noon + TimeDelta::hours(hour);
        let end = json!({ "end_position": 1, "occurred_at": start + TimeDelta::seconds(59) });
        let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": start });
        let session = id(&reader.start_with(start).await.ok());
        let _ = reader.end(session, end).await.ok();
    }
    app.settled().await;
    let sums = async |reader: &Reader, path: &str, list: &str, minutes: &str, seconds: &str| {
        let body = get(reader, path).await.ok();
        let list = body[list].as_array().unwrap().clone();
        let sum = |field: &str| {
            list.iter()
                .map(|part| part[field].as_i64().unwrap())
                .sum::<i64>()
        };
        (sum(minutes), sum(seconds))
    };
    let (minutes, seconds) = ("active_minutes", "active_seconds");
    for (path, list, minutes, seconds) in [
        ("/stats/daily", "days", minutes, seconds),
        ("/stats/weekly", "days", "minutes", "seconds"),
        ("/stats/patterns", "weekdays", minutes, seconds),
        ("/stats/patterns", "hours", minutes, seconds),
    ] {
        let sums = sums(&reader, path, list, minutes, seconds).await;
        assert_eq!(sums, (11, 708), "{list} of {path}");
    }
    let (minutes, seconds) = ("total_reading_minutes", "total_reading_seconds");
    let all = sums(&app.operator(), "/stats/daily", "days", minutes, seconds).await;
    assert_eq!(all, (11, 708));
    let history = get(&reader, "/history").await.ok();
    let sessions = history["sessions"].as_array().unwrap().iter();
    let seconds = sessions.map(|session| session["active_seconds"].as_i64().unwrap());
    assert_eq!(seconds.sum::<i64>(), 708);
}
