//! Published events match `nats/asyncapi.yaml` and the JSON Schemas in `nats/schemas`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::asyncapi::{AsyncApi, folder, validate};
use tests::reader::id;
use tests::stream::Published;
use tests::{App, Reader, invariants, stream};
use uuid::Uuid;

/// The bodies of a start command, one for each combination of optional fields.
fn starts() -> impl Iterator<Item = Value> {
    let optional = [
        ("device_type", json!("tablet")),
        ("device_id", json!("kitchen")),
        ("time_zone", json!("Europe/Berlin")),
        ("locator", json!("chapter 1")),
        (
            "book",
            json!({ "title": "Middlemarch", "total_pages": 880 }),
        ),
    ];
    (0..1_usize << optional.len()).map(move |fields| {
        let mut body = json!({ "book_id": Uuid::new_v4(), "start_position": fields });
        for (bit, (name, value)) in optional.iter().enumerate() {
            if fields >> bit & 1 == 1 {
                body[*name] = value.clone();
            }
        }
        body
    })
}

/// Sends every kind of command, with observations in and out of order, and a start that
/// is not the newest. Each start supersedes the previous session if it is still active.
async fn send_all_commands(reader: &Reader) {
    for (n, start) in starts().enumerate() {
        let session = id(&reader.start_with(start).await.ok());
        let _ = reader.update(session, 33.3333).await.ok();
        let late = eventlog::clock::now() - chrono::TimeDelta::minutes(1);
        let late = json!({ "current_position": 12, "locator": "page 3", "occurred_at": late });
        let _ = reader.update_with(session, late.clone()).await.ok();
        let batch = json!([{ "session_id": session, "current_position": 100 }]);
        let _ = reader.batch(batch).await.ok();
        if n % 3 == 0 {
            let body = if n % 2 == 0 {
                json!({})
            } else {
                json!({ "end_position": 1.5 })
            };
            let _ = reader.end(session, body).await.ok();
            let late = json!({ "current_position": 13, "occurred_at": late["occurred_at"] });
            let _ = reader.update_with(session, late).await.ok();
            let _ = reader
                .correct(session, json!({ "active_seconds": 0 }))
                .await
                .ok();
        }
    }
    let yesterday = eventlog::clock::now() - chrono::TimeDelta::days(1);
    let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": yesterday });
    let _ = reader.start_with(start).await.ok();
}

/// The events that a service published, with subjects without the test's prefix.
async fn published() -> Vec<Published> {
    let app = App::start().await;
    let reader = app.reader();
    send_all_commands(&reader).await;
    invariants::check(&app).await;
    let _ = reader.erase().await.ok();
    invariants::check(&app).await;
    let mut published = stream::read_all(&app.env).await;
    let prefix = format!("{}.", app.env.nats_prefix);
    for published in &mut published {
        published.subject = published.subject.replacen(&prefix, "", 1);
    }
    published
}

#[tokio::test]
async fn published_events_match_their_schemas_and_broken_ones_do_not() {
    let description = AsyncApi::new();
    let published = published().await;
    let mut types = BTreeSet::new();
    for Published { subject, event, .. } in &published {
        let valid = description.validate(subject, event);
        valid.unwrap_or_else(|error| panic!("{error} in {event}"));
        types.insert(event["type"].as_str().unwrap());
    }
    let current = [
        "reading.session.ended.v3",
        "reading.session.erased.v1",
        "reading.session.position_updated.v2",
        "reading.session.started.v1",
    ];
    assert_eq!(types, BTreeSet::from(current));
    let reasons: BTreeSet<_> = published
        .iter()
        .filter_map(|published| published.event["data"]["reason"].as_str())
        .collect();
    assert_eq!(reasons, BTreeSet::from(["finished", "superseded"]));
    // The optional fields occur.
    let occurs = |field: &str, kind: &dyn Fn(&Value) -> bool| {
        let mut events = published.iter().map(|published| &published.event);
        events.any(|event| !event["data"][field].is_null() && kind(event))
    };
    for field in [
        "corrected",
        "active_fixed",
        "intervals_complete",
        "position_at",
    ] {
        assert!(occurs(field, &|_| true), "{field}");
    }
    for field in ["started_at", "ended_at", "end_reason"] {
        let late = |event: &Value| event["data"]["applied"] == false;
        assert!(occurs(field, &late), "{field} of a late observation");
    }
    assert!(occurs("end_reason", &|event| event["sequence"] == "1"));

    for event_type in current {
        let correct = published
            .iter()
            .find(|published| published.event["type"] == event_type)
            .unwrap();
        let rejects = |change: &dyn Fn(&mut Value)| {
            let mut event = correct.event.clone();
            change(&mut event);
            let valid = description.validate(&correct.subject, &event);
            assert!(valid.is_err(), "{event}");
        };
        let required = ["id", "sequence", "globalposition", "partitionkey", "data"];
        for name in required {
            rejects(&|event| drop(event.as_object_mut().unwrap().remove(name)));
        }
        for name in ["type", "reader_id"] {
            rejects(&|event| drop(event["data"].as_object_mut().unwrap().remove(name)));
        }
        if event_type != "reading.session.erased.v1" {
            rejects(&|event| event["data"]["position"] = json!(100.1));
        }
        rejects(&|event| event["data"]["reader_id"] = json!("me"));
        rejects(&|event| event["time"] = json!("yesterday"));
        rejects(&|event| event["globalposition"] = json!(7));
        rejects(&|event| event["type"] = json!("reading.session.ended.v4"));
        rejects(&|event| event["data"]["type"] = json!("SessionPaused"));
        if event_type == "reading.session.ended.v3" {
            rejects(&|event| drop(event["data"].as_object_mut().unwrap().remove("elapsed_ms")));
            rejects(&|event| drop(event["data"].as_object_mut().unwrap().remove("intervals")));
        }
        for subject in ["reading.sessions.paused.p1", "reading.sessions.ended.p8"] {
            assert!(description.validate(subject, &correct.event).is_err());
        }
    }
}

#[test]
fn payloads_of_all_event_versions_match_their_schemas() {
    let fixtures = folder().join("../eventlog/fixtures");
    let mut checked = BTreeSet::new();
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(name) = name.strip_suffix(".json") else {
            continue;
        };
        // Fixtures of one version differ in the optional fields.
        let version = name.trim_end_matches(".least").trim_end_matches(".later");
        let schema = format!("schemas/{version}.json");
        let payload = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let valid = validate(&json!({ "$ref": schema }), &payload);
        valid.unwrap_or_else(|error| panic!("{name}: {error}"));
        checked.insert(schema);
    }
    let mut events = schemas();
    events.retain(|name| !name.contains("envelope") && !name.contains("dead_letter"));
    assert_eq!(checked, events);
}

/// References to the committed JSON Schemas.
fn schemas() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder().join("schemas")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| format!("schemas/{name}"))
        .collect()
}

#[test]
fn committed_schemas_equal_the_generated_ones() {
    for (name, schema) in messaging::json_schema::documents() {
        let committed = std::fs::read_to_string(folder().join("schemas").join(&name));
        assert!(
            committed.is_ok_and(|committed| committed == format!("{schema:#}\n")),
            "nats/schemas/{name} differs from the code: run `make schemas`, but never change \
             the schema of a published version"
        );
    }
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                found.insert(reference);
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn asyncapi_document_is_complete_and_consistent() {
    let description = AsyncApi::new();
    let document = description.document();
    let mut all = BTreeSet::new();
    references(document, &mut all);
    let (internal, external): (BTreeSet<&str>, BTreeSet<&str>) =
        all.into_iter().partition(|name| name.starts_with('#'));
    for reference in internal {
        let value = json!({ "$ref": reference });
        assert!(!description.resolve(&value).is_null(), "{reference}");
    }
    // Every schema is referenced, and every reference has a schema.
    let external: BTreeSet<String> = external.into_iter().map(str::to_owned).collect();
    assert_eq!(external, schemas());

    let messages = document["components"]["messages"].as_object().unwrap();
    let channels = document["channels"].as_object().unwrap();
    let carried: BTreeSet<&str> = channels
        .values()
        .flat_map(|channel| channel["messages"].as_object().unwrap().keys())
        .map(String::as_str)
        .collect();
    assert_eq!(carried, messages.keys().map(String::as_str).collect());
    for (key, message) in messages {
        let name = message["name"].as_str().unwrap();
        let event_name = format!("reading.session.{key}");
        assert!(
            name == event_name || name == format!("reading.{key}"),
            "{name}"
        );
        let mut payload = BTreeSet::new();
        references(&message["payload"], &mut payload);
        let data = format!("schemas/{key}.json");
        assert!(payload.contains(data.as_str()), "{key}: {payload:?}");
    }
    let sent: BTreeSet<&str> = document["operations"]
        .as_object()
        .unwrap()
        .values()
        .map(|operation| operation["channel"]["$ref"].as_str().unwrap())
        .map(|channel| channel.trim_start_matches("#/channels/"))
        .collect();
    assert_eq!(sent, channels.keys().map(String::as_str).collect());
}
