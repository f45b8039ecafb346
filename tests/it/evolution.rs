//! Every version of every event that a build ever wrote stays readable. The log and
//! the stream keep each event as it was written.

use domain::{SessionEvent, SessionId, Timestamp};
use eventlog::upcast;
use serde_json::{Value, json};
use tests::asyncapi::AsyncApi;
use tests::reader::id;
use tests::{App, Reader, invariants, stream};
use uuid::Uuid;

/// A stored payload: event type, version and JSON text.
macro_rules! stored {
    ($event:literal, $version:literal, $file:literal) => {
        (
            $event,
            $version,
            include_str!(concat!("../../eventlog/fixtures/", $file, ".json")).trim_ascii_end(),
        )
    };
}

type Payload = (&'static str, &'static str, &'static str);

const STARTED: Payload = stored!("SessionStarted", "1", "started.v1");
const LATER_STARTED: Payload = stored!("SessionStarted", "1", "started.v1.later");
const UPDATED_1: Payload = stored!("PositionUpdated", "1", "position_updated.v1");
const UPDATED_2: Payload = stored!("PositionUpdated", "2", "position_updated.v2");
const ENDED_1: Payload = stored!("SessionEnded", "1", "ended.v1");
const ENDED_2: Payload = stored!("SessionEnded", "2", "ended.v2");
const ENDED_3: Payload = stored!("SessionEnded", "3", "ended.v3");
const ERASED: Payload = stored!("SessionErased", "1", "erased.v1");
const LEAST_STARTED: Payload = stored!("SessionStarted", "1", "started.v1.least");
const LEAST_UPDATED_1: Payload = stored!("PositionUpdated", "1", "position_updated.v1.least");
const LEAST_UPDATED_2: Payload = stored!("PositionUpdated", "2", "position_updated.v2.least");
const LEAST_ENDED_1: Payload = stored!("SessionEnded", "1", "ended.v1.least");
const LEAST_ENDED_2: Payload = stored!("SessionEnded", "2", "ended.v2.least");
const LEAST_ENDED_3: Payload = stored!("SessionEnded", "3", "ended.v3.least");

fn decoded((event, version, payload): Payload) -> SessionEvent {
    upcast::decode(event, version, payload).unwrap()
}

#[test]
fn current_payloads_decode_and_encode_identically() {
    let today = [
        STARTED,
        LATER_STARTED,
        UPDATED_2,
        ENDED_3,
        ERASED,
        LEAST_STARTED,
        LEAST_UPDATED_2,
        LEAST_ENDED_3,
    ];
    for stored @ (event, version, payload) in today {
        let decoded = decoded(stored);
        assert_eq!((decoded.name(), decoded.version()), (event, version));
        assert_eq!(serde_json::to_string(&decoded).unwrap(), payload);
    }
    // Each current version needs a payload in this list.
    let versions: Vec<_> = today
        .iter()
        .map(|(event, version, _)| (event, version))
        .collect();
    for current in SessionEvent::NAMES.iter().zip(&SessionEvent::VERSIONS) {
        assert!(versions.contains(&current), "{current:?}");
    }
}

#[test]
fn old_versions_are_upcast_to_the_current_one() {
    assert_eq!(decoded(LEAST_UPDATED_1), decoded(LEAST_UPDATED_2));
    for old in [LEAST_ENDED_1, LEAST_ENDED_2] {
        assert_eq!(decoded(old), decoded(LEAST_ENDED_3));
    }
    assert_eq!(decoded(ENDED_1), decoded(ENDED_2));
}

/// A fixture's payload with this reader's id and yesterday's date; the rest is
/// unchanged.
fn adapted(reader: &Reader, payload: &str) -> String {
    let yesterday = (eventlog::clock::now() - chrono::TimeDelta::days(1)).date_naive();
    payload
        .replace(
            "5e3a0c1e-6f0b-4a58-9c61-0d9d2a6a7b01",
            &reader.id.to_string(),
        )
        .replace("2026-03-01", &yesterday.to_string())
}

/// Appends a session's events as an older build did. If `open`, also sets the
/// reader's active-session claim.
async fn append(app: &App, reader: &Reader, events: &[Payload], open: bool) -> Uuid {
    let id = SessionId::new(eventlog::clock::now()).uuid();
    let count = events.len();
    let readers = if open { vec![reader.id] } else { Vec::new() };
    let sequences: Vec<i64> = (1..).take(count).collect();
    let payloads: Vec<String> = events.iter().map(|(.., p)| adapted(reader, p)).collect();
    sqlx::query(
        "select append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
            '{}', '{}', '{}', '{}', '{}')",
    )
    .bind(vec![0; count])
    .bind(vec![id.to_string(); count])
    .bind(sequences)
    .bind(vec!["reading_session"; count])
    .bind(events.iter().map(|(event, ..)| *event).collect::<Vec<_>>())
    .bind(events.iter().map(|(_, v, _)| *v).collect::<Vec<_>>())
    .bind(payloads)
    .bind(vec!["{}"; count])
    .bind(vec![0; readers.len()])
    .bind(&readers)
    .bind(vec![None::<String>; readers.len()])
    .bind(vec![Some(id.to_string()); readers.len()])
    .execute(&app.pool)
    .await
    .unwrap();
    id
}

#[tokio::test]
async fn version_1_session_is_read_and_published_unchanged() {
    let app = App::start().await;
    let (reader, other) = (app.reader(), app.reader());
    let written = [STARTED, UPDATED_1, ENDED_1];
    let session = append(&app, &reader, &written, false).await;
    let least = [LEAST_STARTED, LEAST_UPDATED_1, LEAST_ENDED_1];
    let _ = append(&app, &other, &least, false).await;
    invariants::check(&app).await;

    for reader in [&reader, &other] {
        let history = reader.history("").await.ok();
        let shown = &history["sessions"][0];
        assert_eq!(shown["start_position"], 10);
        assert_eq!(shown["end_position"], 20.5);
        assert_eq!(shown["is_active"], false);
        assert_eq!(shown["active_seconds"], 89);
        assert_eq!(shown["duration_seconds"], 89);
        let by_id = reader.session(id(shown)).await.ok();
        assert_eq!(by_id, *shown);
        let days = reader.days().await.ok();
        assert_eq!(days["days"][0]["sessions"], 1);
        assert_eq!(days["days"][0]["progress"], 10.5);
    }
    let shown = reader.session(session).await.ok();
    assert_eq!(shown["end_reason"], "superseded");
    assert_eq!(shown["locator"], "chapter 2");

    let published = stream::read_all(&app.env).await;
    let description = AsyncApi::new();
    let prefix = format!("{}.", app.env.nats_prefix);
    let events = written.iter().zip(["started", "position_updated", "ended"]);
    for (published, ((.., payload), name)) in published.iter().zip(events) {
        let data = format!(r#""data":{}}}"#, adapted(&reader, payload));
        assert!(published.text.ends_with(&data), "{}", published.text);
        assert_eq!(
            published.event["type"],
            format!("reading.session.{name}.v1")
        );
        let subject = published.subject.replacen(&prefix, "", 1);
        description.validate(&subject, &published.event).unwrap();
    }
    assert_eq!(published.len(), 6);
}

#[tokio::test]
async fn session_started_in_version_1_ends_in_version_3() {
    let app = App::start().await;
    let reader = app.reader();
    let session = append(&app, &reader, &[STARTED, UPDATED_1], true).await;
    let ended = reader
        .end(session, json!({ "end_position": 30 }))
        .await
        .ok();
    invariants::check(&app).await;

    let published = stream::read_all(&app.env).await;
    let end = &published.last().unwrap().event;
    assert_eq!(end["type"], "reading.session.ended.v3");
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let open = time(&ended["ended_at"]) - time(&ended["started_at"]);
    assert_eq!(end["data"]["elapsed_ms"], open.num_milliseconds());
    assert!(open > chrono::TimeDelta::zero());
}

/// The time of day of the fixtures' second minute, on the day that [`adapted`] uses.
fn yesterday_at(time: &str) -> String {
    let yesterday = (eventlog::clock::now() - chrono::TimeDelta::days(1)).date_naive();
    format!("{yesterday}T{time}Z")
}

/// The old build credited the time up to the start of the next session, at 20:01:30.
#[tokio::test]
async fn late_observation_of_an_old_superseded_session_counts_once() {
    let app = App::start().await;
    let reader = app.reader();
    let session = append(&app, &reader, &[STARTED, UPDATED_1, ENDED_2], false).await;
    let late = json!({ "current_position": 22, "occurred_at": yesterday_at("20:02:00") });
    let shown = reader.update_with(session, late).await.ok();
    assert_eq!(shown["end_position"], 22);
    assert_eq!(shown["active_seconds"], 119);
    assert_eq!(shown["duration_seconds"], 119);
    invariants::check(&app).await;
}

#[tokio::test]
async fn old_finished_session_accepts_late_observations() {
    let app = App::start().await;
    let reader = app.reader();
    let events = [LEAST_STARTED, LEAST_UPDATED_1, LEAST_ENDED_2];
    let session = append(&app, &reader, &events, false).await;
    let late = json!({ "current_position": 70, "occurred_at": yesterday_at("20:01:20") });
    let shown = reader.update_with(session, late).await.ok();
    // The end of the old build has the reader's position.
    assert_eq!(shown["end_position"], 20.5);
    assert_eq!(shown["furthest_position"], 70);
    assert_eq!(shown["active_seconds"], 89);
    invariants::check(&app).await;
}
