//! What a reader did, how much and when: pages, and answers that include what
//! was just done.

use std::collections::BTreeSet;

use chrono::{Days, TimeDelta, Timelike};
use reqwest::Method;
use serde_json::{Value, json};
use services::clock;
use services::config::Role;
use tests::reader::id;
use tests::{Answer, App, Reader};
use uuid::Uuid;

fn position(answer: &Answer) -> i64 {
    answer.header("x-global-position").parse().unwrap()
}

async fn get(reader: &Reader, path: &str) -> Answer {
    reader.call(Method::GET, path, None).await
}

async fn with_sessions(app: &App, count: usize) -> (Reader, Vec<Uuid>) {
    let reader = app.reader();
    let mut newest_first = Vec::new();
    let mut last = 0;
    for _ in 0..count {
        let started = reader.start(Uuid::new_v4()).await;
        last = position(&started);
        newest_first.insert(0, id(&started.ok()));
    }
    let answer = reader.history(&format!("?min_position={last}")).await;
    assert_eq!(answer.status, 200);
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
async fn old_clients_number_their_pages() {
    let app = App::start().await;
    let (reader, all) = with_sessions(&app, 5).await;
    let mut seen = Vec::new();
    for (page, has_next) in [(1, true), (2, true), (3, false)] {
        let answer = reader.history(&format!("?page={page}&limit=2")).await;
        let link = answer.header("link").to_owned();
        let body = answer.ok();
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
    for bad in ["?page=0", "?page=1001", "?page=-1", "?page=x"] {
        let answer = reader.history(bad).await;
        assert_eq!(answer.body["errors"][0]["field"], "page", "{bad}");
        let _ = answer.problem(422);
    }
}

#[tokio::test]
async fn links_lead_through_the_whole_history_even_while_it_grows() {
    let app = App::start().await;
    let (reader, all) = with_sessions(&app, 7).await;
    let mut seen = Vec::new();
    let mut query = "?page_size=3".to_owned();
    loop {
        let answer = reader.history(&query).await;
        let link = answer.header("link").to_owned();
        let body = answer.ok();
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
async fn a_cursor_goes_before_a_page_and_is_good_for_its_own_list_alone() {
    let app = App::start().await;
    let (reader, all) = with_sessions(&app, 3).await;
    let first = reader.history("?page_size=1").await.ok();
    let cursor = first["next_cursor"].as_str().unwrap();
    let query = format!("?cursor={cursor}&page=3&page_size=1");
    let second = reader.history(&query).await.ok();
    assert_eq!(ids(&second), all[1..2]);
    assert_eq!(second["page"], Value::Null);

    let book = Uuid::new_v4();
    let foreign = app.reader().history(&format!("?cursor={cursor}")).await;
    assert!(foreign.problem(400).starts_with("Invalid cursor"));
    let query = format!("?cursor={cursor}&book_id={book}");
    let filtered = reader.history(&query).await;
    assert!(filtered.problem(400).starts_with("Invalid cursor"));
}

#[tokio::test]
async fn a_query_that_asks_for_it_includes_what_was_just_done() {
    let app = App::start().await;
    let reader = app.reader();
    for n in 1..=20 {
        let started = reader.start(Uuid::new_v4()).await;
        let at = position(&started);
        let session = id(&started.ok());
        for path in [
            format!("/history?min_position={at}&page_size=1"),
            format!("/active?min_position={at}"),
            format!("/{session}?min_position={at}"),
        ] {
            let answer = get(&reader, &path).await.ok();
            let shown = answer.get("sessions").map_or(&answer, |all| &all[0]);
            assert_eq!(id(shown), session, "{path}");
        }
        let days = format!("/stats/daily?min_position={at}");
        assert_eq!(get(&reader, &days).await.ok()["days"][0]["sessions"], n);
    }
}

#[tokio::test]
async fn a_query_that_cannot_include_what_it_should_says_so() {
    let app = App::start().await;
    let reader = app.reader();
    let started = reader.start(Uuid::new_v4()).await;
    let beyond = position(&started) + 1_000;
    let (stack, corner) = (app.stack.clone(), app.corner.clone());
    app.stop().await;
    // Nobody projects here.
    let settings = tests::app::settings(&corner, &[Role::Api]);
    let app = App::run(stack, corner, &settings).await;
    let reader = app.reader_with_id(reader.id);
    let paths = ["/history", "/active", "/stats/daily", "/stats/weekly"];
    let asked = paths.map(|path| {
        let reader = reader.clone();
        async move { get(&reader, &format!("{path}?min_position={beyond}")).await }
    });
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.header("retry-after"), "1");
        let _ = answer.problem(504);
    }
    for bad in ["x", "", "1.5"] {
        let answer = get(&reader, &format!("/active?min_position={bad}")).await;
        assert_eq!(answer.body["errors"][0]["field"], "min_position");
        let _ = answer.problem(422);
    }
}

/// A zone in which it is about noon, so that no reading is near midnight.
fn noon() -> String {
    match i64::from(clock::now().hour()) - 12 {
        0 => "Etc/GMT".to_owned(),
        // These names count westward.
        behind => format!("Etc/GMT{behind:+}"),
    }
}

/// Reads for `minutes`, `days` ago at the time of day that it is now, and that
/// is noon there.
async fn read(reader: &Reader, days: i64, minutes: i64) {
    let start = clock::now() - TimeDelta::days(days) - TimeDelta::minutes(minutes);
    let body = json!({ "book_id": Uuid::new_v4(), "occurred_at": start, "time_zone": noon() });
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
async fn a_week_has_seven_days_and_today_is_the_first() {
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
async fn a_streak_is_days_in_a_row_with_a_minute_of_reading() {
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
async fn patterns_tell_active_time_by_weekday_and_hour() {
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
    // Whole minutes of parts: at most one is lost at the turn of an hour.
    assert!(
        (4..=6).contains(&sum("hours", "active_minutes")),
        "{patterns}"
    );
    assert_eq!(sum("weekdays", "sessions"), 2);
    let week = get(&reader, "/stats/patterns?days=3").await.ok();
    assert_ne!(week, patterns);
}
