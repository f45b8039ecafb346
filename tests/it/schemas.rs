//! What is published is as `nats/asyncapi.yaml` and the schemas beside it say.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::asyncapi::{AsyncApi, folder, valid};
use tests::reader::id;
use tests::stream::Published;
use tests::{App, Reader, check, stream};
use uuid::Uuid;

/// The bodies of a start: with all optional fields, with none, and with each
/// choice between.
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
    (0..1_usize << optional.len()).map(move |choice| {
        let mut body = json!({ "book_id": Uuid::new_v4(), "start_position": choice });
        for (bit, (name, value)) in optional.iter().enumerate() {
            if choice >> bit & 1 == 1 {
                body[*name] = value.clone();
            }
        }
        body
    })
}

/// Starts, reads in order and out of it, and ends; each start supersedes the
/// session before, when that is still open.
async fn read_much(reader: &Reader) {
    for (n, start) in starts().enumerate() {
        let session = id(&reader.start_with(start).await.ok());
        let _ = reader.update(session, 33.3333).await.ok();
        let late = services::clock::now() - chrono::TimeDelta::minutes(1);
        let late = json!({ "current_position": 12, "locator": "page 3", "occurred_at": late });
        let _ = reader.update_with(session, late).await.ok();
        let batch = json!([{ "session_id": session, "current_position": 100 }]);
        let _ = reader.batch(batch).await.ok();
        if n % 3 == 0 {
            let body = if n % 2 == 0 {
                json!({})
            } else {
                json!({ "end_position": 1.5 })
            };
            let _ = reader.end(session, body).await.ok();
        }
    }
}

/// What a service published, under the names of the public contract.
async fn published() -> Vec<Published> {
    let app = App::start().await;
    let reader = app.reader();
    read_much(&reader).await;
    check::everything(&app).await;
    let _ = reader.erase().await.ok();
    check::everything(&app).await;
    let mut published = stream::read_all(&app.corner).await;
    let prefix = format!("{}.", app.corner.nats_prefix);
    for published in &mut published {
        published.subject = published.subject.replacen(&prefix, "", 1);
    }
    published
}

#[tokio::test]
async fn every_published_event_is_as_its_schema_says_and_a_wrong_one_is_not() {
    let description = AsyncApi::new();
    let published = published().await;
    let mut types = BTreeSet::new();
    for Published { subject, event, .. } in &published {
        let holds = description.holds(subject, event);
        holds.unwrap_or_else(|error| panic!("{error} in {event}"));
        types.insert(event["type"].as_str().unwrap());
    }
    let today = [
        "reading.session.ended.v2",
        "reading.session.erased.v1",
        "reading.session.position_updated.v1",
        "reading.session.started.v1",
    ];
    assert_eq!(types, BTreeSet::from(today));
    let reasons: BTreeSet<_> = published
        .iter()
        .filter_map(|published| published.event["data"]["reason"].as_str())
        .collect();
    assert_eq!(reasons, BTreeSet::from(["finished", "superseded"]));

    for kind in today {
        let right = published.iter().find(|p| p.event["type"] == kind).unwrap();
        let wrong = |change: &dyn Fn(&mut Value)| {
            let mut event = right.event.clone();
            change(&mut event);
            let holds = description.holds(&right.subject, &event);
            assert!(holds.is_err(), "{event}");
        };
        let required = ["id", "sequence", "globalposition", "partitionkey", "data"];
        for name in required {
            wrong(&|event| drop(event.as_object_mut().unwrap().remove(name)));
        }
        for name in ["type", "reader_id"] {
            wrong(&|event| drop(event["data"].as_object_mut().unwrap().remove(name)));
        }
        if kind != "reading.session.erased.v1" {
            wrong(&|event| event["data"]["position"] = json!(100.1));
        }
        wrong(&|event| event["data"]["reader_id"] = json!("me"));
        wrong(&|event| event["time"] = json!("yesterday"));
        wrong(&|event| event["globalposition"] = json!(7));
        wrong(&|event| event["type"] = json!("reading.session.ended.v3"));
        wrong(&|event| event["data"]["type"] = json!("SessionPaused"));
        if kind == "reading.session.ended.v2" {
            wrong(&|event| drop(event["data"].as_object_mut().unwrap().remove("elapsed_ms")));
        }
        for subject in ["reading.sessions.paused.p1", "reading.sessions.ended.p8"] {
            assert!(description.holds(subject, &right.event).is_err());
        }
    }
}

#[test]
fn every_payload_that_a_log_may_hold_is_as_its_schema_says() {
    let fixtures = folder().join("../eventlog/fixtures");
    let mut checked = BTreeSet::new();
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(name) = name.strip_suffix(".json") else {
            continue;
        };
        let schema = format!("schemas/{}.json", name.trim_end_matches(".least"));
        let payload = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let fits = valid(&json!({ "$ref": schema }), &payload);
        fits.unwrap_or_else(|error| panic!("{name}: {error}"));
        checked.insert(schema);
    }
    let mut events = schemas();
    events.retain(|name| !name.contains("envelope") && !name.contains("dead_letter"));
    assert_eq!(checked, events);
}

/// The references to the committed schemas.
fn schemas() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder().join("schemas")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| format!("schemas/{name}"))
        .collect()
}

#[test]
fn the_committed_schemas_are_those_of_the_code() {
    for (name, schema) in eventlog::schema::documents() {
        let committed = std::fs::read_to_string(folder().join("schemas").join(&name));
        assert!(
            committed.is_ok_and(|committed| committed == format!("{schema:#}\n")),
            "nats/schemas/{name} is stale: run `make schemas`; a version that was \
             published gets no other meaning"
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
fn the_description_hangs_together() {
    let description = AsyncApi::new();
    let document = description.document();
    let mut all = BTreeSet::new();
    references(document, &mut all);
    let (within, beside): (BTreeSet<&str>, BTreeSet<&str>) =
        all.into_iter().partition(|name| name.starts_with('#'));
    for reference in within {
        let value = json!({ "$ref": reference });
        assert!(!description.resolve(&value).is_null(), "{reference}");
    }
    // No schema that nobody names, and none named that is not there.
    let beside: BTreeSet<String> = beside.into_iter().map(str::to_owned).collect();
    assert_eq!(beside, schemas());

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
        let of_event = format!("reading.session.{key}");
        assert!(
            name == of_event || name == format!("reading.{key}"),
            "{name}"
        );
        let mut named = BTreeSet::new();
        references(&message["payload"], &mut named);
        let data = format!("schemas/{key}.json");
        assert!(named.contains(data.as_str()), "{key}: {named:?}");
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
