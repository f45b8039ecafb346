//! A reader with two devices.

use super::*;

use serde_json::json;
use server::config::Role;
use tests::reader::id;

/// Two sessions that are updated alternately, once a minute each.
fn alternating(begin: Time, count: i64) -> Plan {
    let device = |offset: TimeDelta| session(begin + offset, 0, 1..=count);
    let second = PlannedSession {
        device_id: "e-ink",
        device_type: "tablet",
        ..device(TimeDelta::seconds(30))
    };
    Plan {
        sessions: vec![device(TimeDelta::zero()), second],
    }
}

/// The calls of two devices that are both online.
fn alternately(count: usize) -> Vec<Call> {
    let starts = [Call::Start(0), Call::Start(1)].into_iter();
    let update = |device, index| Call::Update(Seen::Counted(device, index));
    let updates = (0..count).flat_map(|index| [update(0, index), update(1, index)]);
    starts.chain(updates).collect()
}

#[tokio::test]
async fn two_books_on_two_devices_are_two_sessions_that_both_advance() {
    let app = App::start().await;
    let begin = minutes_ago(20);
    let plan = alternating(begin, 6);
    in_any_order(&app, &plan, &alternately(6), async |told| {
        for number in [0, 1] {
            let expected = json!({
                "active_seconds": 6 * 60, "progress_delta": 6, "end_position": 6,
                "duration_minutes": 6,
            });
            told.assert(number, expected).await;
        }
        told.assert(
            0,
            json!({ "end_reason": "superseded", "ended_at": begin + minutes(6) }),
        )
        .await;
        told.assert(1, json!({ "is_active": true, "ended_at": null }))
            .await;
        assert_eq!(told.active().await, Some(1));
        let history = told.reader.history("").await.ok();
        assert_eq!(history["total"], 2);
        let days = get(&told.reader, "/stats/daily").await;
        assert_eq!(total(&days, "days", "active_seconds"), 6 * 60 + 30);
        assert_eq!(total(&days, "days", "progress"), 12);
    })
    .await;
}

#[tokio::test]
async fn two_devices_that_alternate_for_an_hour_lose_no_minute() {
    let app = App::start().await;
    let begin = minutes_ago(70);
    let plan = alternating(begin, 60);
    let told = Told::deliver(&app, &plan, &alternately(60)).await;
    app.settled().await;
    for number in [0, 1] {
        let expected = json!({ "active_seconds": 3_600, "end_position": 60 });
        told.assert(number, expected).await;
    }
    let days = get(&told.reader, "/stats/daily").await;
    assert_eq!(total(&days, "days", "active_seconds"), 3_630);
    invariants::check(&app).await;
}

/// The first process has an older state of the session in memory than the log. It reads
/// the observations and then, because of the repeat, the newest state.
#[tokio::test]
async fn late_observation_through_another_process_is_counted_once() {
    let app = App::start().await;
    let other = app.alongside(&[Role::Api]).await;
    let reader = app.reader();
    let begin = minutes_ago(40);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
    let session = id(&reader.start_with(start).await.ok());
    let update = |seconds: i64, position: i64| {
        json!({
            "session_id": session, "current_position": position,
            "occurred_at": begin + TimeDelta::seconds(seconds),
        })
    };
    let _ = reader.update_with(session, update(1_800, 30)).await.ok();
    let elsewhere = reader.at(&other.url);
    let _ = elsewhere.update_with(session, update(600, 10)).await.ok();
    // One that is new, one that only the other process knows, and a repeat.
    let updates = [update(630, 11), update(600, 10), update(1_800, 30)];
    let batch = reader.batch(json!(updates)).await.ok();
    assert_eq!(batch["success_count"], 3, "{batch}");
    let shown = reader.session(session).await.ok();
    // +0:00 to +2:00, +10:00 to +12:30, and +30:00.
    assert_fields(
        &shown,
        &json!({ "active_seconds": 120 + 150, "version": 4 }),
    );
    assert_eq!(elsewhere.session(session).await.ok(), shown);
    invariants::check(&app).await;
}

#[tokio::test]
async fn updates_without_times_move_the_active_session_between_two_devices() {
    let app = App::start().await;
    let reader = app.reader();
    let sessions = [
        id(&reader.start(Uuid::new_v4()).await.ok()),
        id(&reader.start(Uuid::new_v4()).await.ok()),
    ];
    for position in 1..=6 {
        for session in sessions {
            let updated = reader.update(session, f64::from(position)).await.ok();
            assert_fields(
                &updated,
                &json!({ "applied": true, "is_active": true, "end_position": position }),
            );
            let other = sessions[usize::from(session == sessions[0])];
            let other = reader.session(other).await.ok();
            assert_fields(&other, &json!({ "end_reason": "superseded" }));
            assert_eq!(other["ended_at"], other["last_activity_at"]);
            assert_eq!(id(&reader.active().await.ok()), session);
        }
    }
    app.settled().await;
    assert_eq!(reader.history("").await.ok()["total"], 2);
    invariants::check(&app).await;
}

#[tokio::test]
async fn end_of_the_active_session_does_not_revive_the_other_one() {
    let app = App::start().await;
    let begin = minutes_ago(40);
    let plan = Plan {
        sessions: vec![
            session(begin, 0, [5]),
            ended(session(begin, 10, [12]), begin + minutes(13)),
        ],
    };
    let own = [
        Call::Start(0),
        Call::Update(Seen::Counted(0, 0)),
        Call::Start(1),
        Call::Update(Seen::Counted(1, 0)),
        Call::End(1),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        assert_eq!(told.active().await, None);
        told.assert(
            0,
            json!({ "end_reason": "superseded", "ended_at": begin + minutes(5) }),
        )
        .await;
        told.assert(
            1,
            json!({ "end_reason": "finished", "active_seconds": 180 }),
        )
        .await;
    })
    .await;
    // A newer observation does.
    let told = Told::deliver(&app, &plan, &own).await;
    let update = told.reader.update(told.ids.0[0], 50.0).await.ok();
    assert_eq!(update["is_active"], true);
    app.settled().await;
    assert_eq!(told.active().await, Some(0));
    told.assert(
        1,
        json!({ "end_reason": "finished", "active_seconds": 180 }),
    )
    .await;
    invariants::check(&app).await;
}

/// The later arrival is the newer one if times are equal. An older observation changes
/// nothing about that.
#[tokio::test]
async fn late_observation_takes_no_tie_away() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(40);
    let start = async |at: Time| {
        let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at });
        id(&reader.start_with(start).await.ok())
    };
    let first = start(begin).await;
    let update = async |at: Time| {
        let update = json!({ "current_position": 5, "occurred_at": at });
        reader.update_with(first, update).await.ok()["is_active"].clone()
    };
    assert_eq!(update(begin + minutes(10)).await, true);
    let second = start(begin + minutes(10)).await;
    assert_eq!(update(begin + minutes(5)).await, false);
    assert_eq!(update(begin + minutes(10)).await, false);
    app.settled().await;
    assert_eq!(id(&reader.active().await.ok()), second);
    assert_eq!(update(begin + minutes(11)).await, true);
    invariants::check(&app).await;
}

/// An observation that an earlier end hides is still the reader's newest one.
#[tokio::test]
async fn end_before_the_newest_observation_makes_no_older_session_active() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(60);
    let start = async |at: Time| {
        let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": at });
        id(&reader.start_with(start).await.ok())
    };
    let first = start(begin).await;
    let update = json!({ "current_position": 5, "occurred_at": begin + minutes(40) });
    let _ = reader.update_with(first, update).await.ok();
    let second = start(begin + minutes(35)).await;
    let end = json!({ "occurred_at": begin + minutes(30) });
    let _ = reader.end(first, end).await.ok();
    let third = start(begin + minutes(32)).await;
    for (session, minute) in [(second, 36), (third, 33)] {
        let update = json!({ "current_position": 5, "occurred_at": begin + minutes(minute) });
        let updated = reader.update_with(session, update).await.ok();
        assert_eq!(updated["is_active"], false);
    }
    app.settled().await;
    assert_eq!(reader.active().await.ok(), Value::Null);
    let _ = reader.update(second, 6.0).await.ok();
    app.settled().await;
    assert_eq!(id(&reader.active().await.ok()), second);
    invariants::check(&app).await;
}

/// A phone reads from 19:48 to 19:50. An e-ink device reads the same book from 18:48
/// to 20:48, and is online after both.
#[tokio::test]
async fn session_that_was_sent_later_is_the_one_with_the_latest_activity() {
    let app = App::start().await;
    let begin = minutes_ago(150);
    let book = Uuid::new_v4();
    let phone = PlannedSession {
        book,
        observations: vec![observation(begin + minutes(62), 32)],
        ..session(begin, 60, [])
    };
    let e_ink = PlannedSession {
        book,
        start: observation(begin, 10),
        observations: (1..=120)
            .map(|minute| observation(begin + minutes(minute), 10 + minute / 2))
            .collect(),
        ..session(begin, 0, [])
    };
    let plan = Plan {
        sessions: vec![phone, e_ink],
    };
    let own = [
        Call::Start(0),
        Call::Update(Seen::Counted(0, 0)),
        Call::Start(1),
        batch(1, 0..50),
        batch(1, 50..100),
        batch(1, 100..120),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        let history = told.reader.history(&format!("?book_id={book}")).await.ok();
        let sessions = history["sessions"].as_array().unwrap();
        let time = |session: &Value| {
            session["last_activity_at"]
                .as_str()
                .unwrap()
                .parse::<Time>()
        };
        let latest = sessions.iter().max_by_key(|one| time(one).unwrap());
        assert_fields(
            latest.unwrap(),
            &json!({
                "end_position": 70, "last_activity_at": begin + minutes(120), "is_active": true,
                "active_seconds": 7_200,
            }),
        );
        told.assert(
            0,
            json!({
                "end_position": 32, "last_activity_at": begin + minutes(62),
                "end_reason": "superseded", "active_seconds": 120,
            }),
        )
        .await;
        let days = get(&told.reader, "/stats/daily").await;
        assert_eq!(total(&days, "days", "active_seconds"), 7_200);
    })
    .await;
}
