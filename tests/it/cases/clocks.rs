//! Devices whose clock is wrong.

use super::*;

use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use tests::ApiResponse;
use tests::reader::id;

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
