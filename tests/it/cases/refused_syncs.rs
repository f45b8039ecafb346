//! A bad sync gets a clear response, and leaves nothing half-written.

use super::*;

use rstest::rstest;
use serde_json::json;
use std::collections::BTreeSet;
use tests::ApiResponse;
use tests::reader::id;

fn good(begin: Time) -> Value {
    json!({
        "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
        "ended_at": begin + minutes(2), "observations": [
            { "current_position": 1, "occurred_at": begin + minutes(1) },
            { "current_position": 2, "occurred_at": begin + minutes(2) },
        ],
    })
}

/// The sessions with events in the log.
async fn recorded(app: &App) -> BTreeSet<String> {
    let log = invariants::read_log(&app.pool).await;
    log.into_iter().map(|event| event.session_id).collect()
}

/// Asserts that a session was refused with a reason: alone, or with the whole call.
/// Returns whether the others were recorded.
fn refused(response: &ApiResponse, index: usize) -> bool {
    if response.status == 200 {
        let result = &response.body["results"][index];
        assert!(
            result["error"].is_string() || result["code"].is_string(),
            "{}",
            response.body
        );
        return true;
    }
    assert!(
        matches!(response.status.as_u16(), 400 | 422),
        "{} {}",
        response.status,
        response.body
    );
    assert!(response.body["code"].is_string(), "{}", response.body);
    false
}

#[rstest]
#[case::end_before_the_start(json!({ "ended_at": minutes_ago(61) }))]
#[case::too_old(json!({ "started_at": minutes_ago(60 * 24 * 40) }))]
#[case::no_start(json!({ "started_at": null }))]
#[case::start_is_no_time(json!({ "started_at": "yesterday" }))]
#[case::no_session_id(json!({ "session_id": null }))]
#[case::random_session_id(json!({ "session_id": Uuid::new_v4() }))]
#[case::session_id_is_no_uuid(json!({ "session_id": "x" }))]
#[case::no_book_id(json!({ "book_id": null }))]
#[case::book_id_is_no_uuid(json!({ "book_id": 7 }))]
#[case::start_position_outside(json!({ "start_position": 101 }))]
#[case::observations_are_no_list(json!({ "observations": {} }))]
#[case::too_many_observations(json!({ "observations": vec![
    json!({ "current_position": 1, "occurred_at": minutes_ago(59) }); 501
] }))]
#[tokio::test]
async fn bad_session_of_a_sync_is_refused_as_a_whole(#[case] change: Value) {
    let app = App::start().await;
    let reader = app.reader();
    let mut bad = good(minutes_ago(60));
    let bad_id = bad["session_id"].as_str().unwrap().to_owned();
    for (field, value) in change.as_object().unwrap() {
        bad[field] = value.clone();
    }
    let (before, after) = (good(minutes_ago(90)), good(minutes_ago(30)));
    let body = json!({ "sessions": [before, bad, after] });
    let response = reader.sync(body.clone()).await;
    let others = refused(&response, 1);
    let log = recorded(&app).await;
    assert!(!log.contains(&bad_id), "{}", response.body);
    assert_eq!(log.len(), if others { 2 } else { 0 }, "{}", response.body);
    // Without it, the others are recorded completely.
    let _ = reader
        .sync(json!({ "sessions": [before, after] }))
        .await
        .ok();
    app.settled().await;
    let history = reader.history("").await.ok();
    assert_eq!(history["total"], 2);
    for session in history["sessions"].as_array().unwrap() {
        let expected = json!({ "active_seconds": 120, "end_reason": "finished" });
        assert_fields(session, &expected);
    }
    invariants::check(&app).await;
}

/// The session is recorded with its other observations.
#[rstest]
#[case::no_time(json!({ "current_position": 1 }))]
#[case::no_position(json!({ "occurred_at": minutes_ago(59) }))]
#[case::position_outside(json!({ "current_position": 101, "occurred_at": minutes_ago(59) }))]
#[case::time_is_a_number(json!({ "current_position": 1, "occurred_at": 1_790_000_000 }))]
#[case::too_old(json!({ "current_position": 1, "occurred_at": minutes_ago(60 * 24 * 40) }))]
#[case::no_object(json!("nonsense"))]
#[case::null(Value::Null)]
#[tokio::test]
async fn bad_observation_of_a_sync_is_refused_alone(#[case] bad: Value) {
    let app = App::start().await;
    let reader = app.reader();
    let mut session = good(minutes_ago(60));
    let observations = session["observations"].as_array_mut().unwrap();
    observations.insert(1, bad);
    let response = reader.sync(json!({ "sessions": [session] })).await.ok();
    let result = &response["results"][0];
    assert_eq!(result["success"], true, "{result}");
    let refused = result["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{result}");
    assert_eq!(refused[0]["index"], 1);
    for text in ["code", "error"] {
        assert!(!refused[0][text].as_str().unwrap().is_empty());
    }
    let shown = reader.session(id_of_session(&session)).await.ok();
    let expected = json!({
        "active_seconds": 120, "end_position": 2, "end_reason": "finished", "version": 4,
    });
    assert_fields(&shown, &expected);
    app.settled().await;
    invariants::check(&app).await;
}

#[rstest]
#[case::empty(json!({ "sessions": [] }))]
#[case::missing(json!({}))]
#[case::no_list(json!({ "sessions": {} }))]
#[case::fifty_one(json!({
    "sessions": (0..51).map(|count| good(minutes_ago(100 + count))).collect::<Vec<_>>()
}))]
#[case::sent_at_is_no_time(json!({ "sent_at": "now", "sessions": [good(minutes_ago(60))] }))]
#[tokio::test]
async fn bad_sync_is_refused_and_appends_nothing(#[case] body: Value) {
    let app = App::start().await;
    let refused = app.reader().sync(body).await;
    assert!(!refused.problem_code(422).is_empty());
    assert!(recorded(&app).await.is_empty());
}

#[tokio::test]
async fn sync_without_sent_at_is_refused() {
    let app = App::start().await;
    let body = json!({ "sessions": [good(minutes_ago(60))] });
    let refused = app
        .reader()
        .call(reqwest::Method::POST, "/sync", Some(body))
        .await;
    assert_eq!(refused.body["errors"][0]["field"], "sent_at");
    let _ = refused.problem(422);
    assert!(recorded(&app).await.is_empty());
}

#[tokio::test]
async fn sync_above_one_megabyte_returns_413() {
    let app = App::start().await;
    let reader = app.reader();
    let mut session = good(minutes_ago(60));
    session["book"] = json!({ "title": "x".repeat(1_100_000) });
    let response = reader.sync(json!({ "sessions": [session] })).await;
    let _ = response.problem(413);
    assert!(recorded(&app).await.is_empty());
    // Other calls keep their smaller limit.
    let start = json!({ "book_id": Uuid::new_v4(), "locator": "x".repeat(100_000) });
    let _ = reader.start_with(start).await.problem(413);
    assert!(recorded(&app).await.is_empty());
}

#[tokio::test]
async fn session_without_observations_is_a_start() {
    let app = App::start().await;
    let reader = app.reader();
    for (minutes_before, observations) in [(60, json!([])), (30, Value::Null)] {
        let begin = minutes_ago(minutes_before);
        let mut session = json!({
            "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
            "start_position": 12,
        });
        if !observations.is_null() {
            session["observations"] = observations;
        }
        let _ = reader.sync(json!({ "sessions": [session] })).await.ok();
        let active = reader.active().await.ok();
        assert_fields(
            &active,
            &json!({
                "id": session["session_id"], "end_position": 12, "active_seconds": 0,
                "started_at": begin,
            }),
        );
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn session_of_another_reader_is_refused_in_a_sync() {
    let app = App::start().await;
    let owner = app.reader();
    let begin = minutes_ago(60);
    let foreign = good(begin);
    let start = json!({
        "session_id": foreign["session_id"], "book_id": foreign["book_id"], "occurred_at": begin,
    });
    let theirs = id(&owner.start_with(start).await.ok());
    app.settled().await;
    let before = owner.session(theirs).await.ok();
    let reader = app.reader();
    let own = good(minutes_ago(30));
    let response = reader.sync(json!({ "sessions": [own, foreign] })).await;
    let others = refused(&response, 1);
    assert!(
        !response.body.to_string().contains(&owner.id.to_string()),
        "{}",
        response.body
    );
    app.settled().await;
    assert_eq!(owner.session(theirs).await.ok(), before);
    let history = reader.history("").await.ok();
    assert_eq!(history["total"], i64::from(others));
    invariants::check(&app).await;
}

#[tokio::test]
async fn session_with_another_book_is_refused_in_a_sync() {
    let app = App::start().await;
    let reader = app.reader();
    let session = good(minutes_ago(60));
    let _ = reader.sync(json!({ "sessions": [session] })).await.ok();
    let events = invariants::read_log(&app.pool).await.len();
    let mut other = session.clone();
    other["book_id"] = json!(Uuid::new_v4());
    let response = reader.sync(json!({ "sessions": [other] })).await;
    let conflict = response.status == 409 && response.body["code"].is_string();
    assert!(conflict || refused(&response, 0));
    assert_eq!(invariants::read_log(&app.pool).await.len(), events);
}

#[tokio::test]
async fn session_twice_in_one_sync_is_merged_or_refused() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(60);
    let mut first = good(begin);
    let mut second = first.clone();
    first["observations"] = json!([
        { "current_position": 1, "occurred_at": begin + minutes(1) },
    ]);
    second["observations"] = json!([
        { "current_position": 2, "occurred_at": begin + minutes(2) },
    ]);
    let response = reader.sync(json!({ "sessions": [first, second] })).await;
    if response.status == 200 {
        let session = reader.session(id_of_session(&first)).await.ok();
        let expected = json!({ "active_seconds": 120, "end_position": 2 });
        assert_fields(&session, &expected);
    } else {
        let _ = response.problem(422);
        assert!(recorded(&app).await.is_empty());
    }
}

fn id_of_session(session: &Value) -> Uuid {
    session["session_id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn observations_after_the_end_of_a_synced_session_do_not_count() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(60);
    let session = json!({
        "session_id": id_of(begin), "book_id": Uuid::new_v4(), "started_at": begin,
        "ended_at": begin + minutes(2), "observations": [
            { "current_position": 9, "occurred_at": begin + minutes(3) },
            { "current_position": 1, "occurred_at": begin + minutes(1) },
        ],
    });
    // It does not supersede the live session either.
    let live = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin + TimeDelta::seconds(150) });
    let live = id(&reader.start_with(live).await.ok());
    for new in [1, 0] {
        let synced = reader.sync(json!({ "sessions": [session] })).await.ok();
        let result = &synced["results"][0];
        assert_eq!(result["new_observations"], new);
        assert_eq!(result["refused"][0]["index"], 0);
        assert_eq!(result["refused"][0]["code"], "session_inactive");
        let expected = json!({
            "end_position": 1, "active_seconds": 120, "ended_at": begin + minutes(2),
            "furthest_position": 1,
        });
        assert_fields(&result["session"], &expected);
    }
    app.settled().await;
    assert_eq!(id(&reader.active().await.ok()), live);
    invariants::check(&app).await;
}

/// A misspelled `ended_at` leaves the session open, so it must not be ignored silently.
#[tokio::test]
async fn unknown_field_of_a_synced_session_gives_a_warning() {
    let app = App::start().await;
    let reader = app.reader();
    let mut session = good(minutes_ago(60));
    session["end_at"] = json!(clock::now());
    let synced = reader.sync(json!({ "sessions": [session] })).await.ok();
    let expected = json!([{
        "code": "unknown_field", "field": "sessions[0].end_at",
        "message": "unknown field; ignored",
    }]);
    assert_eq!(synced["warnings"], expected);
}

/// A time ahead of the arrival is certainly wrong.
#[tokio::test]
async fn end_of_a_synced_session_in_the_future_is_the_arrival() {
    let app = App::start().await;
    let reader = app.reader();
    let mut session = good(minutes_ago(60));
    session["ended_at"] = json!(clock::now() + TimeDelta::days(3));
    let _ = reader.sync(json!({ "sessions": [session] })).await.ok();
    let shown = reader.session(id_of_session(&session)).await.ok();
    let expected = json!({
        "active_seconds": 240, "end_position": 2, "duration_minutes": 60,
        "end_reason": "finished",
    });
    assert_fields(&shown, &expected);
    let ended_at: Time = shown["ended_at"].as_str().unwrap().parse().unwrap();
    assert!(ended_at <= clock::now());
    invariants::check(&app).await;
}

/// The reader ended the session at another time before.
#[tokio::test]
async fn first_end_of_a_session_stays() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(60);
    let mut session = good(begin);
    let _ = reader.sync(json!({ "sessions": [session] })).await.ok();
    let before = reader.session(id_of_session(&session)).await.ok();
    session["ended_at"] = json!(begin + minutes(30));
    let _ = reader.sync(json!({ "sessions": [session] })).await;
    assert_eq!(
        reader.session(id_of_session(&session)).await.ok(),
        before,
        "a correction is a call of its own"
    );
    let end = json!({ "occurred_at": begin + minutes(40) });
    let again = reader.end(id_of_session(&session), end).await;
    assert_eq!(again.problem(400), "Session already ended");
}

#[tokio::test]
async fn end_before_the_start_never_shortens_a_session_below_zero() {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(60);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
    let session = id(&reader.start_with(start).await.ok());
    let end = json!({ "occurred_at": begin - minutes(5) });
    let response = reader.end(session, end).await;
    assert!(
        matches!(response.status.as_u16(), 200 | 422),
        "{}",
        response.body
    );
    let shown = reader.session(session).await.ok();
    for field in ["duration_seconds", "duration_minutes", "active_seconds"] {
        assert_eq!(shown[field], 0, "{shown}");
    }
    if response.status == 200 {
        assert_eq!(shown["ended_at"], shown["started_at"], "{shown}");
    }
    invariants::check(&app).await;
}
