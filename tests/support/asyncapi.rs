//! The description of what is published, `nats/asyncapi.yaml` with the schemas
//! beside it, and whether a message is as it says.

use std::path::{Path, PathBuf};

use jsonschema::{Retrieve, Uri};
use serde_json::{Value, json};

/// Where the description and its schemas are.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats")
}

/// The description.
pub struct AsyncApi {
    document: Value,
}

/// Schemas by their references, which are relative to the description.
struct Beside;

impl Retrieve for Beside {
    fn retrieve(
        &self,
        uri: &Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let file = folder().join(uri.path().as_str().trim_start_matches('/'));
        Ok(serde_json::from_str(&std::fs::read_to_string(file)?)?)
    }
}

impl AsyncApi {
    /// As it is committed.
    #[must_use]
    pub fn new() -> Self {
        let text = std::fs::read_to_string(folder().join("asyncapi.yaml")).unwrap();
        Self {
            document: serde_saphyr::from_str(&text).unwrap(),
        }
    }

    /// All of it.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// What a reference within the description, or a value itself, stands for.
    #[must_use]
    pub fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self
                .document
                .pointer(reference.trim_start_matches('#'))
                .unwrap_or_else(|| panic!("{reference} leads nowhere")),
            None => value,
        }
    }

    /// The messages that a channel may carry.
    pub fn messages<'a>(&'a self, channel: &'a Value) -> impl Iterator<Item = &'a Value> {
        let messages = channel["messages"].as_object().unwrap().values();
        messages.map(|message| self.resolve(message))
    }

    /// Whether something published on a subject is as its type says.
    ///
    /// # Errors
    /// Says what is not.
    pub fn holds(&self, subject: &str, event: &Value) -> Result<(), String> {
        let channels = self.document["channels"].as_object().unwrap().values();
        let channel = channels
            .into_iter()
            .find(|channel| self.is_address(channel, subject))
            .ok_or_else(|| format!("{subject} is no channel's"))?;
        let message = self
            .messages(channel)
            .find(|message| message["name"] == event["type"])
            .ok_or_else(|| format!("{subject} does not carry {}", event["type"]))?;
        valid(&message["payload"], event)
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

/// Whether a value is as a schema says, whose references are relative to the
/// description.
///
/// # Errors
/// Says what is not.
pub fn valid(schema: &Value, value: &Value) -> Result<(), String> {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
    });
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .with_base_uri("reading:///asyncapi.yaml")
        .with_retriever(Beside)
        .build(&schema)
        .map_err(|error| error.to_string())?;
    validator
        .validate(value)
        .map_err(|error| format!("{}: {error}", error.instance_path()))
}
