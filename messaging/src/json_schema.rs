//! JSON Schemas of the published messages: the envelope, and the current version of
//! each event. They are derived from the Rust types.
//!
//! `make schemas` writes them to `nats/schemas`. The folder also contains the
//! schemas of older versions, which are not generated any more.

use domain::SessionEvent;
use domain::event::{PositionUpdated, SessionEnded, SessionErased, SessionStarted};
use schemars::{Schema, schema_for};
use serde_json::{Value, json};

use crate::cloud_event::CloudEvent;
use crate::subject::short_name;

/// The schemas, each with its file name in `nats/schemas`.
#[must_use]
pub fn documents() -> Vec<(String, Value)> {
    let events = [
        schema_for!(SessionStarted),
        schema_for!(PositionUpdated),
        schema_for!(SessionEnded),
        schema_for!(SessionErased),
    ];
    let mut documents = vec![("envelope.json".to_owned(), schema_for!(CloudEvent).into())];
    for (kind, schema) in events.into_iter().enumerate() {
        let (name, version) = (SessionEvent::NAMES[kind], SessionEvent::VERSIONS[kind]);
        documents.push((
            format!("{}.v{version}.json", short_name(name)),
            tagged(schema, name),
        ));
    }
    documents
}

/// Adds the member `type`, which every payload contains.
fn tagged(schema: Schema, name: &str) -> Value {
    let mut schema = Value::from(schema);
    schema["properties"]["type"] = json!({ "type": "string", "const": name });
    if let Some(required) = schema["required"].as_array_mut() {
        required.insert(0, "type".into());
    }
    schema
}
