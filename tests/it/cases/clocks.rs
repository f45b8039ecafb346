//! Devices whose clock is wrong.

use super::*;

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::ApiResponse;
use tests::reader::id;

/// The largest difference that the duration of a request makes.
const TOLERANCE: TimeDelta = TimeDelta::seconds(20);

/// A device with a wrong clock.
struct Device {
    reader: Reader,
    /// The difference of its clock to the server's; positive if it is ahead.
    ahead: TimeDelta,
    /// Whether it sends `sent_at`.
    signs: bool,
}

impl Device {
    fn time(&self, at: Time) -> Time {
        at + self.ahead
    }

    async fn send(&self, method: Method, path: &str, mut body: Value) -> ApiResponse {
        if self.signs || path == "/sync" {
            body["sent_at"] = json!(self.time(clock::now()));
        }
        self.reader.call(method, path, Some(body)).await
    }

    /// Starts a session at `begin`, and sends an update for each of 40 minutes and the
    /// end. All times are by the device's clock.
    async fn read(&self, begin: Time) -> Uuid {
        let at = |minute| self.time(begin + minutes(minute));
        let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at(0) });
        let started = self.send(Method::POST, "/start", start).await;
        let session = id(&started.ok());
        let updates: Vec<Value> = (1..=40)
            .map(|minute| {
                json!({
                    "session_id": session, "current_position": minute, "occurred_at": at(minute),
                })
            })
            .collect();
        let batch = json!({ "updates": updates });
        let batch = self.send(Method::POST, "/batch-update", batch).await.ok();
        assert_eq!(batch["success_count"], 40, "{batch}");
        session
    }

    async fn end(&self, session: Uuid, at: Time) -> ApiResponse {
        let end = json!({ "occurred_at": self.time(at) });
        self.send(Method::PUT, &format!("/{session}/end"), end)
            .await
    }

    /// Uploads 40 minutes of reading in one call.
    async fn sync(&self, begin: Time) -> Uuid {
        let at = |minute| self.time(begin + minutes(minute));
        let session = id_of(clock::now());
        let observations: Vec<Value> = (1..=40)
            .map(|minute| json!({ "current_position": minute, "occurred_at": at(minute) }))
            .collect();
        let body = json!({ "sessions": [{
            "session_id": session, "book_id": Uuid::new_v4(), "started_at": at(0),
            "observations": observations,
        }] });
        let synced = self.send(Method::POST, "/sync", body).await.ok();
        assert_eq!(synced["results"].as_array().unwrap().len(), 1);
        session
    }
}

#[track_caller]
fn assert_about(shown: &Value, expected: Time) {
    let shown: Time = shown.as_str().unwrap().parse().unwrap();
    assert!(
        (shown - expected).abs() < TOLERANCE,
        "{shown} is not about {expected}"
    );
}

#[track_caller]
fn assert_seconds(session: &Value, expected: i64) {
    let shown = session["active_seconds"].as_i64().unwrap();
    let difference = (shown - expected).abs();
    assert!(difference <= TOLERANCE.num_seconds(), "{session}");
}

/// With `sent_at`, the service corrects all times of the command.
#[rstest]
#[case::three_hours_ahead(TimeDelta::hours(3))]
#[case::twelve_minutes_ahead(TimeDelta::minutes(12))]
#[case::a_day_behind(TimeDelta::days(-1))]
#[case::an_hour_behind(TimeDelta::hours(-1))]
#[case::right(TimeDelta::zero())]
#[case::in_the_year_2000(days_since_2000())]
#[case::in_1970(-(clock::now() - Time::UNIX_EPOCH))]
#[case::in_2100(TimeDelta::days(74 * 365))]
#[tokio::test]
async fn sent_at_corrects_the_times_of_a_wrong_clock(#[case] ahead: TimeDelta) {
    let app = App::start().await;
    let begin = minutes_ago(42);
    let device = Device {
        reader: app.reader(),
        ahead,
        signs: true,
    };
    let read = device.read(begin).await;
    let shown = device.reader.session(read).await.ok();
    assert_seconds(&shown, 40 * 60);
    assert_about(&shown["started_at"], begin);
    assert_about(&shown["last_activity_at"], begin + minutes(40));
    assert_eq!(shown["is_active"], true);
    assert_eq!(shown["end_position"], 40);
    let ended = device.end(read, begin + minutes(41)).await.ok();
    assert_about(&ended["ended_at"], begin + minutes(41));
    assert_eq!(ended["end_reason"], "finished");

    let synced = device.sync(begin).await;
    let shown = device.reader.session(synced).await.ok();
    assert_seconds(&shown, 40 * 60);
    assert_about(&shown["started_at"], begin);
    assert_eq!(shown["end_position"], 40);
    // The two sessions are one time of reading.
    app.settled().await;
    let days = get(&device.reader, "/stats/daily").await;
    let seconds = total(&days, "days", "active_seconds");
    assert!((40 * 60..=42 * 60).contains(&seconds), "{days}");
    invariants::check(&app).await;
}

/// A clock without a battery begins at the year 2000 when the device starts.
fn days_since_2000() -> TimeDelta {
    let then: Time = "2000-01-01T00:50:00Z".parse().unwrap();
    then - clock::now()
}

/// The command is repeated, so the service shifts it by another amount.
#[tokio::test]
async fn repeated_command_of_a_wrong_clock_changes_nothing() {
    let app = App::start().await;
    let begin = minutes_ago(40);
    let device = Device {
        reader: app.reader(),
        ahead: TimeDelta::hours(3),
        signs: true,
    };
    let session = device.sync(begin).await;
    let read = async || {
        let session = device.reader.session(session).await.ok();
        (
            session["version"].clone(),
            session["last_activity_at"].clone(),
        )
    };
    let before = read().await;
    let update = json!({
        "current_position": 40, "occurred_at": device.time(begin + minutes(40)),
    });
    let path = format!("/{session}/update");
    let repeated = device.send(Method::PUT, &path, update.clone()).await.ok();
    // It is still the latest one.
    assert_eq!(repeated["applied"], true);
    let mut item = update;
    item["session_id"] = json!(session);
    let batch = json!({ "updates": [item] });
    let _ = device.send(Method::POST, "/batch-update", batch).await.ok();
    assert_eq!(read().await, before);
}

/// A slow connection delays the update by half a second, and the end by nothing.
#[rstest]
#[case::right_clock(TimeDelta::zero(), true)]
#[case::right_clock_and_end_first(TimeDelta::zero(), false)]
#[case::wrong_clock(TimeDelta::hours(3), true)]
#[case::wrong_clock_and_end_first(TimeDelta::hours(3), false)]
#[tokio::test]
async fn delayed_update_of_the_same_moment_as_the_end_counts(
    #[case] ahead: TimeDelta,
    #[case] update_first: bool,
) {
    let app = App::start().await;
    let device = Device {
        reader: app.reader(),
        ahead,
        signs: true,
    };
    let begin = minutes_ago(10);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": device.time(begin) });
    let session = id(&device.send(Method::POST, "/start", start).await.ok());
    let last = begin + minutes(2);
    let update = async || {
        let sent_at = device.time(clock::now() - TimeDelta::milliseconds(500));
        let body = json!({
            "current_position": 70, "occurred_at": device.time(last), "sent_at": sent_at,
        });
        let _ = device.reader.update_with(session, body).await.ok();
    };
    if update_first {
        update().await;
    }
    let _ = device.end(session, last).await.ok();
    if !update_first {
        update().await;
    }
    let ended = device.reader.session(session).await.ok();
    let expected = json!({ "end_position": 70, "end_reason": "finished" });
    assert_fields(&ended, &expected);
}

/// Without `sent_at`, the service keeps the spacing of times that are ahead of it.
#[tokio::test]
async fn batch_of_a_clock_ahead_keeps_its_spacing() {
    let app = App::start().await;
    let begin = minutes_ago(40);
    let device = Device {
        reader: app.reader(),
        ahead: TimeDelta::hours(3),
        signs: false,
    };
    let read = device.read(begin).await;
    let shown = device.reader.session(read).await.ok();
    // The start was a call of its own, and its time is its arrival.
    assert_seconds(&shown, 39 * 60);
    assert_about(&shown["last_activity_at"], clock::now());
    assert_fields(&shown, &json!({ "end_position": 40, "is_active": true }));

    invariants::check(&app).await;
}

/// Only the last twelve minutes are ahead of the service, so most times look right.
#[tokio::test]
async fn batch_of_a_clock_slightly_ahead_keeps_its_last_position() {
    let app = App::start().await;
    let begin = minutes_ago(40);
    let device = Device {
        reader: app.reader(),
        ahead: TimeDelta::minutes(12),
        signs: false,
    };
    let session = device.read(begin).await;
    let shown = device.reader.session(session).await.ok();
    assert_seconds(&shown, 39 * 60);
    assert_about(&shown["last_activity_at"], clock::now());
    assert_fields(&shown, &json!({ "end_position": 40, "is_active": true }));
    invariants::check(&app).await;
}

/// The clock was wrong until the device was online for a moment.
#[tokio::test]
async fn run_of_times_ahead_ends_at_the_next_plausible_item() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(60);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
    let session = id(&reader.start_with(start).await.ok());
    let wrong = clock::now() + TimeDelta::hours(5);
    let update = |position: i64, at: Time| json!({ "session_id": session, "current_position": position, "occurred_at": at });
    let updates = json!([
        update(1, begin + minutes(1)),
        update(2, wrong),
        update(3, wrong + minutes(1)),
        update(4, wrong + minutes(2)),
        update(5, begin + minutes(30)),
        update(6, begin + minutes(31)),
    ]);
    assert_eq!(reader.batch(updates).await.ok()["success_count"], 6);
    let shown = reader.session(session).await.ok();
    // +0 and +1; the run, which ends at +30; +30 and +31.
    let expected = json!({
        "active_seconds": (1 + 2 + 2 + 1) * 60, "end_position": 6,
        "last_activity_at": begin + minutes(31),
    });
    assert_fields(&shown, &expected);
}

#[tokio::test]
async fn of_two_observations_of_one_moment_the_one_sent_later_wins() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(10);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
    let session = id(&reader.start_with(start).await.ok());
    let update = |position: i64| {
        json!({
            "session_id": session, "current_position": position,
            "occurred_at": begin + minutes(1),
        })
    };
    for (sent, latest) in [
        (json!([update(30)]), 30),
        (json!([update(50)]), 50),
        (json!([update(20)]), 20),
        (json!([update(90), update(40)]), 40),
        // Repeats, which are not sent later.
        (json!([update(50), update(90)]), 40),
    ] {
        assert_eq!(reader.batch(sent).await.ok()["failed_count"], 0);
        let shown = reader.session(session).await.ok();
        assert_eq!(shown["end_position"], latest);
    }
    // A position that comes with the end wins over all of them.
    let end = json!({ "end_position": 35, "occurred_at": begin + minutes(1) });
    let ended = reader.end(session, end).await.ok();
    assert_fields(
        &ended,
        &json!({ "end_position": 35, "furthest_position": 90, "active_seconds": 60 }),
    );
    let _ = reader.update_with(session, update(60)).await.ok();
    let shown = reader.session(session).await.ok();
    assert_eq!(shown["end_position"], 35);
    invariants::check(&app).await;
}

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
