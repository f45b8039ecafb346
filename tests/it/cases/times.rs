//! The forms of times: leap seconds, offsets, and times that are impossible.

use super::*;

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::reader::id;

#[tokio::test]
async fn leap_second_is_the_next_second_in_every_answer() {
    let app = App::start().await;
    let reader = app.reader();
    let leap = |minute: &str| {
        let second = days_ago(1, "12:00:00").date_naive();
        format!("{second}T12:{minute}:60Z")
    };
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": leap("33") });
    let started = reader.start_with(start).await.ok();
    let session = id(&started);
    let at = |time: &str| json!({ "at": days_ago(1, time) })["at"].clone();
    assert_eq!(started["started_at"], at("12:34:00"));
    let update = json!({ "current_position": 5, "occurred_at": leap("34") });
    let updated = reader.update_with(session, update.clone()).await.ok();
    assert_eq!(updated["last_activity_at"], at("12:35:00"));
    // A repeat with the usual form of the time changes nothing.
    let mut usual = update;
    usual["occurred_at"] = at("12:35:00");
    assert_eq!(
        reader.update_with(session, usual).await.ok()["version"],
        updated["version"]
    );
    let ended = reader
        .end(session, json!({ "occurred_at": leap("35") }))
        .await
        .ok();
    assert_eq!(ended["ended_at"], at("12:36:00"));
    assert_eq!(ended["active_seconds"], 120);
    app.settled().await;
    assert_eq!(reader.session(session).await.ok(), ended);
    assert_eq!(reader.history("").await.ok()["sessions"], json!([ended]));
    let export = reader.call(Method::GET, "/export", None).await.ok();
    assert!(!export.to_string().contains(":60Z"), "{export}");
    invariants::check(&app).await;
}

/// Offsets and fractions are ways to write one moment.
#[tokio::test]
async fn times_may_have_any_offset() {
    let app = App::start().await;
    let reader = app.reader();
    let date = days_ago(1, "12:00:00").date_naive();
    let start = json!({
        "book_id": Uuid::new_v4(), "occurred_at": format!("{date}T12:00:00+00:00"),
    });
    let session = id(&reader.start_with(start).await.ok());
    let mut version = None;
    for written in [
        "12:01:00Z",
        "12:01:00.000000Z",
        "17:31:00+05:30",
        "04:01:00-08:00",
        "12:01:00-00:00",
    ] {
        let update = json!({
            "current_position": 5, "occurred_at": format!("{date}T{written}"),
        });
        let updated = reader.update_with(session, update).await.ok();
        assert_fields(
            &updated,
            &json!({ "last_activity_at": days_ago(1, "12:01:00"), "active_seconds": 60 }),
        );
        let version = version.get_or_insert_with(|| updated["version"].clone());
        assert_eq!(*version, updated["version"], "{written}");
    }
    // The offset of `sent_at` does not matter either.
    let now = clock::now().with_timezone(&chrono::FixedOffset::east_opt(19_800).unwrap());
    let update = json!({
        "current_position": 6, "occurred_at": days_ago(1, "12:02:00"), "sent_at": now,
    });
    let updated = reader.update_with(session, update).await.ok();
    assert_about(&updated["last_activity_at"], days_ago(1, "12:02:00"));
}

/// By its own clock, the device sends what has not happened yet.
#[rstest]
#[case::seconds_ahead(TimeDelta::zero(), TimeDelta::seconds(10))]
#[case::hours_ahead(TimeDelta::zero(), TimeDelta::hours(5))]
#[case::years_ahead(TimeDelta::zero(), TimeDelta::days(5_000))]
#[case::sent_at_in_1970(clock::now() - Time::UNIX_EPOCH, TimeDelta::zero())]
#[tokio::test]
async fn time_after_the_sending_is_the_arrival(
    #[case] behind: TimeDelta,
    #[case] ahead: TimeDelta,
) {
    let app = App::start().await;
    let reader = app.reader();
    let times = || json!([clock::now() - behind, clock::now() + ahead]);
    let with = |mut body: Value| {
        let times = times();
        body["sent_at"] = times[0].clone();
        body["occurred_at"] = times[1].clone();
        body
    };
    let start = with(json!({ "book_id": Uuid::new_v4() }));
    let session = id(&reader.start_with(start).await.ok());
    let update = with(json!({ "current_position": 5 }));
    let updated = reader.update_with(session, update).await.ok();
    assert_about(&updated["last_activity_at"], clock::now());
    assert_fields(&updated, &json!({ "end_position": 5, "applied": true }));
    let ended = reader.end(session, with(json!({}))).await.ok();
    assert_about(&ended["started_at"], clock::now());
    assert_about(&ended["ended_at"], clock::now());
    let shown: Time = ended["ended_at"].as_str().unwrap().parse().unwrap();
    assert!(shown <= clock::now());
    app.settled().await;
    assert_eq!(reader.session(session).await.ok(), ended);
    invariants::check(&app).await;
}

/// A time at the end of chrono's range, which a leap second or a shift moves past it.
#[tokio::test]
async fn extreme_times_never_fail_with_a_server_error() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let update = |occurred_at: &str| json!({ "session_id": session, "current_position": 5, "occurred_at": occurred_at });
    for extreme in ["+262142-12-31T23:59:60Z", "-262143-01-02T00:00:00Z"] {
        let times = json!({ "current_position": 5, "occurred_at": extreme });
        let single = reader.update_with(session, times).await;
        let updates = [
            update("2100-01-01T00:00:00Z"),
            update("+262142-12-31T00:00:00Z"),
            update(extreme),
        ];
        let batch = reader.batch(json!(updates)).await;
        let sent =
            json!({ "current_position": 5, "occurred_at": clock::now(), "sent_at": extreme });
        let sent = reader.update_with(session, sent).await;
        let end = reader.end(
            session,
            json!({ "occurred_at": extreme, "sent_at": extreme }),
        );
        for response in [single, batch, sent, end.await] {
            assert!(
                response.status.as_u16() < 500,
                "{extreme}: {}",
                response.body
            );
        }
    }
    invariants::check(&app).await;
}

#[rstest]
#[case::occurred_at_without_its_clock("2000-01-01T00:10:00Z", None)]
#[case::sent_at_in_2100("now", Some("2100-01-01T00:10:00Z"))]
#[case::sent_at_that_is_no_time("now", Some("yesterday"))]
#[case::sent_at_without_a_zone("now", Some("2026-11-27T10:00:00"))]
#[case::sent_at_out_of_range("now", Some("+262142-12-31T23:59:59Z"))]
#[tokio::test]
async fn impossible_times_are_refused_and_leave_nothing(
    #[case] occurred_at: &str,
    #[case] sent_at: Option<&str>,
) {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let occurred_at = match occurred_at {
        "now" => json!(clock::now()),
        other => json!(other),
    };
    let mut times = json!({ "occurred_at": occurred_at });
    if let Some(sent_at) = sent_at {
        times["sent_at"] = json!(sent_at);
    }
    let with = |mut body: Value| {
        let object = body.as_object_mut().unwrap();
        object.extend(times.as_object().unwrap().clone());
        body
    };
    let start = reader
        .start_with(with(json!({ "book_id": Uuid::new_v4() })))
        .await;
    let update = reader
        .update_with(session, with(json!({ "current_position": 5 })))
        .await;
    let end = reader
        .end(session, with(json!({ "end_position": 5 })))
        .await;
    let observed = json!({ "current_position": 5, "occurred_at": occurred_at });
    let mut synced = json!({ "sessions": [{
        "session_id": id_of(clock::now()), "book_id": Uuid::new_v4(),
        "started_at": occurred_at, "observations": [observed],
    }] });
    if let Some(sent_at) = sent_at {
        synced["sent_at"] = json!(sent_at);
    }
    let synced = reader.sync(synced).await;
    for response in [start, update, end] {
        assert!(!response.problem_code(422).is_empty());
    }
    assert!(
        synced.status == 422 || synced.body["results"][0]["error"].is_string(),
        "{}",
        synced.body
    );
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);
}
