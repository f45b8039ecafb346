//! The client's timestamps order the updates of a session, not the order of
//! arrival.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use server::config::Role;
use tests::reader::id;
use tests::{App, Reader, invariants};
use uuid::Uuid;

/// Starts a session one hour ago. Returns its id and a function from minutes
/// after the start to a timestamp.
async fn start_an_hour_ago(reader: &Reader) -> (Uuid, impl Fn(i64) -> DateTime<Utc>) {
    let begin = eventlog::clock::now() - TimeDelta::hours(1);
    let at = move |minutes| begin + TimeDelta::minutes(minutes);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at(0) });
    (id(&reader.start_with(start).await.ok()), at)
}

#[tokio::test]
async fn late_observation_is_kept_but_does_not_move_the_position() {
    let app = App::start().await;
    let reader = app.reader();
    let (session, at) = start_an_hour_ago(&reader).await;
    let seen = async |position: u32, when: DateTime<Utc>| {
        let body = json!({ "current_position": position, "occurred_at": when });
        reader.update_with(session, body).await.ok()
    };
    let newest = seen(30, at(10)).await;
    assert_eq!(newest["applied"], true);

    let late = seen(80, at(5)).await;
    assert_eq!(late["applied"], false);
    assert_eq!(late["end_position"], 30);
    assert_eq!(late["furthest_position"], 80);
    assert_eq!(late["version"], 3);

    let duplicate = seen(30, at(10)).await;
    assert_eq!(duplicate["applied"], true);
    assert_eq!(duplicate["active_seconds"], late["active_seconds"]);
    assert_eq!(duplicate["version"], 3);
    assert_eq!(invariants::read_log(&app.pool).await.len(), 3);
    invariants::check(&app).await;
}

#[tokio::test]
async fn session_loaded_after_late_updates_has_its_newest_position() {
    let app = App::start().await;
    let reader = app.reader();
    let (session, at) = start_an_hour_ago(&reader).await;
    let body = |position: u32, minutes| json!({ "current_position": position, "occurred_at": at(minutes), "locator": position.to_string() });
    for (position, minutes) in [(10, 10), (30, 20), (80, 5), (70, 4)] {
        let _ = reader
            .update_with(session, body(position, minutes))
            .await
            .ok();
    }
    let other = app.alongside(&[Role::Api]).await;
    let elsewhere = reader.at(&other.url);
    assert_eq!(
        elsewhere.session(session).await.ok(),
        reader.session(session).await.ok()
    );
    let late = elsewhere.update_with(session, body(90, 15)).await.ok();
    assert_eq!(late["applied"], false);
    assert_eq!(
        (&late["end_position"], &late["locator"]),
        (&json!(30), &json!("30"))
    );
    assert_eq!(
        (&late["furthest_position"], &late["version"]),
        (&json!(90), &json!(6))
    );
    invariants::check(&app).await;
}

#[tokio::test]
async fn order_of_arrival_does_not_change_the_final_position() {
    let app = App::start().await;
    let begin = eventlog::clock::now() - TimeDelta::hours(1);
    let observations: Vec<(i64, i64)> = (1..=8).map(|n| (n, (n * 37) % 100)).collect();
    let mut orders = vec![observations.clone(), observations.clone(), observations];
    orders[1].reverse();
    orders[2].rotate_left(3);
    let repeated = orders[2].clone();
    orders[2].extend(repeated);
    for order in orders {
        let reader = app.reader();
        let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
        let session = id(&reader.start_with(start).await.ok());
        for (minutes, position) in order {
            let occurred_at = begin + TimeDelta::minutes(minutes);
            let body = json!({ "current_position": position, "occurred_at": occurred_at });
            let _ = reader.update_with(session, body).await.ok();
        }
        let session = reader.session(session).await.ok();
        assert_eq!(session["end_position"], 96);
        assert_eq!(session["furthest_position"], 96);
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn active_time_excludes_a_long_gap() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = eventlog::clock::now() - TimeDelta::hours(10);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
    let session = id(&reader.start_with(start).await.ok());
    for (seconds, position) in [(30, 1), (60, 2), (30_000, 3)] {
        let occurred_at = begin + TimeDelta::seconds(seconds);
        let body = json!({ "current_position": position, "occurred_at": occurred_at });
        let _ = reader.update_with(session, body).await.ok();
    }
    let session = reader.session(session).await.ok();
    assert_eq!(session["active_seconds"], 30 + 30 + 120);
    assert_eq!(session["duration_minutes"], 500);
}

#[tokio::test]
async fn update_from_a_fast_clock_does_not_outdate_later_ones() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let ahead = eventlog::clock::now() + TimeDelta::hours(3);
    let body = json!({ "current_position": 10, "occurred_at": ahead });
    let _ = reader.update_with(session, body).await.ok();
    let next = reader.update(session, 11.0).await.ok();
    assert_eq!(next["applied"], true);
    assert_eq!(next["end_position"], 11);
}
