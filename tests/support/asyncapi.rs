//! Validates published messages against `nats/asyncapi.yaml` and the JSON Schemas in
//! `nats/schemas`.

use std::path::{Path, PathBuf};

use jsonschema::{Retrieve, Uri};
use serde_json::{Value, json};

/// The folder of the document and its JSON Schemas.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats")
}

/// The parsed `AsyncAPI` document.
pub struct AsyncApi {
    document: Value,
}

/// Loads JSON Schemas by reference. References are relative to the document.
struct SchemaFiles;

impl Retrieve for SchemaFiles {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let file = folder().join(uri.path().as_str().trim_start_matches('/'));
        Ok(serde_json::from_str(&std::fs::read_to_string(file)?)?)
    }
}

impl AsyncApi {
    /// Reads the committed document.
    #[must_use]
    pub fn new() -> Self {
        let text = std::fs::read_to_string(folder().join("asyncapi.yaml")).unwrap();
        Self {
            document: serde_saphyr::from_str(&text).unwrap(),
        }
    }

    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Resolves a reference within the document. Returns any other value unchanged.
    #[must_use]
    pub fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self
                .document
                .pointer(reference.trim_start_matches('#'))
                .unwrap_or_else(|| panic!("unresolved reference {reference}")),
            None => value,
        }
    }

    /// The messages of a channel.
    pub fn messages<'a>(&'a self, channel: &'a Value) -> impl Iterator<Item = &'a Value> {
        let messages = channel["messages"].as_object().unwrap().values();
        messages.map(|message| self.resolve(message))
    }

    /// Validates an event that was published on a subject.
    ///
    /// # Errors
    /// A description of the first violation.
    pub fn validate(&self, subject: &str, event: &Value) -> Result<(), String> {
        let channels = self.document["channels"].as_object().unwrap().values();
        let channel = channels
            .into_iter()
            .find(|channel| self.is_address(channel, subject))
            .ok_or_else(|| format!("no channel has the subject {subject}"))?;
        let message = self
            .messages(channel)
            .find(|message| message["name"] == event["type"])
            .ok_or_else(|| format!("the channel of {subject} has no message {}", event["type"]))?;
        validate(&message["payload"], event)
    }

    fn is_address(&self, channel: &Value, subject: &str) -> bool {
        let address = channel["address"].as_str().unwrap();
        let (fixed, parameter) = address.split_once('{').unwrap();
        let parameter = &channel["parameters"][parameter.trim_end_matches('}')];
        let one_of = self.resolve(parameter)["enum"].as_array();
        subject.strip_prefix(fixed).is_some_and(|value| {
            one_of.is_none_or(|values| values.contains(&json!(value))) && !value.contains('.')
        })
    }
}

impl Default for AsyncApi {
    fn default() -> Self {
        Self::new()
    }
}

/// Validates a value against a JSON Schema. References are relative to the document.
///
/// # Errors
/// A description of the first violation.
pub fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
    });
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .with_base_uri("reading:///asyncapi.yaml")
        .with_retriever(SchemaFiles)
        .build(&schema)
        .map_err(|error| error.to_string())?;
    validator
        .validate(value)
        .map_err(|error| format!("{}: {error}", error.instance_path()))
}
