//! Devices that were offline and send their observations later.

use super::*;

use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use tests::reader::id;
use tests::{backdate, until};

#[tokio::test]
async fn past_session_of_another_device_leaves_the_live_session_active() {
    let app = App::start().await;
    let (live, past) = (minutes_ago(30), minutes_ago(30) - TimeDelta::days(1));
    let plan = Plan {
        sessions: vec![
            session(live, 0, 1..=29),
            ended(session(past, 0, 1..=20), past + minutes(20)),
        ],
    };
    let own = [
        Call::Start(0),
        batch(0, 0..29),
        Call::Start(1),
        batch(1, 0..20),
        Call::End(1),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        told.assert(
            1,
            json!({
                "active_seconds": 1_200, "end_position": 20, "started_at": past,
                "ended_at": past + minutes(20), "end_reason": "finished",
            }),
        )
        .await;
        told.assert(
            0,
            json!({
                "active_seconds": 29 * 60, "end_position": 29, "is_active": true,
                "ended_at": null, "end_reason": null, "last_activity_at": live + minutes(29),
            }),
        )
        .await;
        assert_eq!(told.active().await, Some(0));
    })
    .await;

    // The live session continues.
    let told = Told::deliver(&app, &plan, &own).await;
    let update = told.reader.update(told.ids.0[0], 30.0).await.ok();
    assert_fields(
        &update,
        &json!({ "applied": true, "is_active": true, "end_position": 30 }),
    );
}

#[tokio::test]
async fn past_session_that_was_never_ended_is_superseded_at_its_last_observation() {
    let app = App::start().await;
    let (live, past) = (minutes_ago(30), minutes_ago(100));
    let plan = Plan {
        sessions: vec![session(live, 0, 1..=29), session(past, 0, [1, 2, 9])],
    };
    let own = [
        Call::Start(0),
        batch(0, 0..10),
        Call::Start(1),
        batch(1, 0..3),
        batch(0, 10..29),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        told.assert(
            1,
            json!({
                "active_seconds": 4 * 60, "end_reason": "superseded", "is_active": false,
                "ended_at": past + minutes(9), "last_activity_at": past + minutes(9),
                "duration_minutes": 9, "end_position": 9,
            }),
        )
        .await;
        told.assert(0, json!({ "active_seconds": 29 * 60, "is_active": true }))
            .await;
        assert_eq!(told.active().await, Some(0));
    })
    .await;
}

#[tokio::test]
async fn observations_of_a_superseded_session_count_when_they_arrive_later() {
    let app = App::start().await;
    let begin = minutes_ago(100);
    // An e-ink device goes offline at +1, and a phone starts another book at +60.
    let plan = Plan {
        sessions: vec![session(begin, 0, 1..=45), session(begin, 60, [])],
    };
    let own = [
        Call::Start(0),
        Call::Update(Seen::Counted(0, 0)),
        Call::Start(1),
        batch(0, 1..45),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        told.assert(
            0,
            json!({
                "active_seconds": 45 * 60, "duration_minutes": 45, "end_position": 45,
                "end_reason": "superseded", "ended_at": begin + minutes(45),
                "last_activity_at": begin + minutes(45),
            }),
        )
        .await;
        told.assert(1, json!({ "is_active": true, "active_seconds": 0 }))
            .await;
        assert_eq!(told.active().await, Some(1));
    })
    .await;
}

#[tokio::test]
async fn offline_session_with_the_newest_observation_is_active_again() {
    let app = App::start().await;
    let begin = minutes_ago(100);
    let plan = Plan {
        sessions: vec![session(begin, 0, 1..=75), session(begin, 60, [63])],
    };
    let own = [
        Call::Start(0),
        Call::Update(Seen::Counted(0, 0)),
        Call::Start(1),
        Call::Update(Seen::Counted(1, 0)),
        batch(0, 1..40),
        batch(0, 40..75),
    ];
    in_any_order(&app, &plan, &own, async |told| {
        told.assert(
            0,
            json!({
                "active_seconds": 75 * 60, "is_active": true, "ended_at": null,
                "end_reason": null,
            }),
        )
        .await;
        told.assert(
            1,
            json!({
                "active_seconds": 120, "end_reason": "superseded", "end_position": 63,
                "ended_at": begin + minutes(63),
            }),
        )
        .await;
        assert_eq!(told.active().await, Some(0));
        // Time that both devices recorded counts once.
        let days = get(&told.reader, "/stats/daily").await;
        assert_eq!(total(&days, "days", "active_seconds"), 75 * 60);
    })
    .await;
}

#[tokio::test]
async fn observations_before_the_end_count_when_they_arrive_after_it() {
    let app = App::start().await;
    let begin = minutes_ago(50);
    let mut read = session(begin, 0, []);
    read.start.position = 800_000;
    read.observations = (1..=40)
        .map(|minute| Observation {
            position: 800_000 + minute * 5_000,
            ..observation(begin + minutes(minute), 0)
        })
        .collect();
    read.end = Some(PlannedEnd {
        at: begin + minutes(40),
        position: Some((1_000_000, None)),
    });
    let plan = Plan {
        sessions: vec![read],
    };
    let own = [Call::Start(0), Call::End(0), batch(0, 0..40)];
    in_any_order(&app, &plan, &own, async |told| {
        told.assert(
            0,
            json!({
                "active_seconds": 40 * 60, "duration_minutes": 40, "start_position": 80,
                "end_position": 100, "furthest_position": 100, "progress_delta": 20,
                "end_reason": "finished", "ended_at": begin + minutes(40),
            }),
        )
        .await;
        assert_eq!(told.active().await, None);
        let days = get(&told.reader, "/stats/daily").await;
        assert_eq!(total(&days, "days", "progress"), 20);
        assert_eq!(total(&days, "days", "active_seconds"), 40 * 60);
    })
    .await;
}

#[tokio::test]
async fn observation_after_the_end_is_refused_in_either_order() {
    let app = App::start().await;
    let begin = minutes_ago(50);
    let mut read = ended(session(begin, 0, 1..=10), begin + minutes(20));
    read.after_end = vec![observation(begin + minutes(21), 99)];
    let plan = Plan {
        sessions: vec![read],
    };
    let own = [Call::Start(0), batch(0, 0..10), Call::End(0)];
    let expected = json!({
        "active_seconds": 12 * 60, "end_position": 10, "furthest_position": 10,
        "ended_at": begin + minutes(20), "last_activity_at": begin + minutes(20),
        "end_reason": "finished",
    });
    let told = Told::deliver(&app, &plan, &own).await;
    let late = json!({ "current_position": 99, "occurred_at": begin + minutes(21) });
    let refused = told.reader.update_with(told.ids.0[0], late).await;
    assert_eq!(refused.problem(400), "Cannot update inactive session");
    app.settled().await;
    told.assert(0, expected.clone()).await;
    // The same, with the later observation first.
    let own = [
        Call::Start(0),
        Call::Update(Seen::AfterEnd(0, 0)),
        Call::End(0),
        batch(0, 0..10),
    ];
    let told = Told::deliver(&app, &plan, &own).await;
    app.settled().await;
    told.assert(0, expected).await;
    let days = get(&told.reader, "/stats/daily").await;
    assert_eq!(total(&days, "days", "active_seconds"), 12 * 60);
    assert_eq!(total(&days, "days", "progress"), 10);
    invariants::check(&app).await;
}

/// A flight: the session is idle before the device is online again.
#[tokio::test]
async fn observations_of_an_idle_session_count_when_they_arrive_later() {
    let app = App::start().await;
    let begin = minutes_ago(200);
    let plan = Plan {
        sessions: vec![ended(session(begin, 0, 1..=49), begin + minutes(49))],
    };
    let before = [Call::Start(0), Call::Update(Seen::Counted(0, 0))];
    let told = Told::deliver(&app, &plan, &before).await;
    become_idle(&app, told.ids.0[0]).await;
    let idle = json!({
        "is_active": false, "end_reason": "idle", "ended_at": begin + minutes(1),
        "active_seconds": 60,
    });
    told.assert(0, idle).await;
    assert_eq!(told.active().await, None);

    told.send(&plan, &[batch(0, 1..49)]).await;
    app.settled().await;
    let later = json!({
        "is_active": true, "end_reason": null, "ended_at": null, "active_seconds": 49 * 60,
    });
    told.assert(0, later).await;
    become_idle(&app, told.ids.0[0]).await;
    let idle = json!({
        "is_active": false, "end_reason": "idle", "ended_at": begin + minutes(49),
        "active_seconds": 49 * 60,
    });
    told.assert(0, idle).await;

    told.send(&plan, &[Call::End(0)]).await;
    app.settled().await;
    let finished = json!({
        "end_reason": "finished", "ended_at": begin + minutes(49), "active_seconds": 49 * 60,
        "duration_minutes": 49, "end_position": 49,
    });
    told.assert(0, finished.clone()).await;
    told.send(&plan, &[before[1].clone(), batch(0, 1..49), Call::End(0)])
        .await;
    app.settled().await;
    told.assert(0, finished.clone()).await;

    // In other orders.
    let own = [Call::Start(0), Call::End(0), batch(0, 0..49)];
    in_any_order(&app, &plan, &own, async |told| {
        told.assert(0, finished.clone()).await;
    })
    .await;
}

#[tokio::test]
async fn older_observation_of_an_idle_session_leaves_it_idle() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(200);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
    let session = id(&reader.start_with(start).await.ok());
    let update = async |minute: i64| {
        let update = json!({ "current_position": minute, "occurred_at": begin + minutes(minute) });
        reader.update_with(session, update).await.ok()
    };
    let _ = update(10).await;
    become_idle(&app, session).await;
    let idle = json!({ "is_active": false, "end_reason": "idle", "ended_at": begin + minutes(10) });
    assert_fields(&update(5).await, &idle);
    let active = json!({ "is_active": true, "end_reason": null, "active_seconds": 300 });
    assert_fields(&update(11).await, &active);
    invariants::check(&app).await;
}

/// The idle limit passes, and the job ends the session.
async fn become_idle(app: &App, session: Uuid) {
    backdate::shift_session(&app.pool, session, TimeDelta::hours(3)).await;
    cleanup(app).await;
    app.settled().await;
}

async fn cleanup(app: &App) {
    let path = "/reading-sessions/cleanup";
    let _ = app.operator().call(Method::POST, path, None).await.ok();
}

#[tokio::test]
async fn update_of_an_idle_session_makes_it_active_again() {
    let app =
        App::with_settings(|settings| settings.jobs.idle_after = Duration::from_secs(1)).await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    let _ = reader.update(session, 10.0).await.ok();
    until("the session is idle", Duration::from_secs(20), async || {
        cleanup(&app).await;
        reader.session(session).await.ok()["end_reason"] == "idle"
    })
    .await;
    let idle = reader.session(session).await.ok();
    assert_eq!(idle["ended_at"], idle["last_activity_at"]);

    let updated = reader.update(session, 11.0).await.ok();
    assert_fields(
        &updated,
        &json!({
            "applied": true, "is_active": true, "ended_at": null, "end_reason": null,
            "end_position": 11,
        }),
    );
    let ended = reader.end(session, json!({ "end_position": 12 })).await;
    assert_fields(
        &ended.ok(),
        &json!({ "end_reason": "finished", "end_position": 12 }),
    );
    invariants::check(&app).await;
}

#[tokio::test]
async fn session_that_starts_in_the_past_is_never_active() {
    let app = App::start().await;
    let reader = app.reader();
    let live = id(&reader.start(Uuid::new_v4()).await.ok());
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": minutes_ago(10 * 24 * 60) });
    let past = reader.start_with(start).await;
    assert_eq!(past.status, 201);
    let past = past.ok();
    let expected = json!({
        "is_active": false, "end_reason": "superseded", "ended_at": past["started_at"],
    });
    assert_fields(&past, &expected);
    assert_eq!(id(&reader.active().await.ok()), live);
    assert_eq!(reader.session(live).await.ok()["is_active"], true);
    invariants::check(&app).await;
}
