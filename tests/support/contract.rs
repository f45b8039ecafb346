//! The description of the API, held against what the service answers.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::reader::Answer;

/// The description, and which of its answers were seen.
pub struct Contract {
    document: Value,
    seen: Mutex<BTreeSet<(String, u16)>>,
}

impl Contract {
    /// As the code has it.
    #[must_use]
    pub fn new() -> Self {
        Self::of(services::api::openapi::document())
    }

    /// Another description.
    #[must_use]
    pub fn of(document: Value) -> Self {
        Self {
            document,
            seen: Mutex::default(),
        }
    }

    /// The operations, by their ids.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &Value)> {
        let paths = self.document["paths"].as_object().unwrap().values();
        paths
            .flat_map(|methods| methods.as_object().unwrap().values())
            .map(|operation| (operation["operationId"].as_str().unwrap(), operation))
    }

    /// All answers that are described: operation and status.
    #[must_use]
    pub fn described(&self) -> BTreeSet<(String, u16)> {
        self.operations()
            .flat_map(|(id, operation)| {
                let statuses = operation["responses"].as_object().unwrap().keys();
                statuses.map(move |status| (id.to_owned(), status.parse().unwrap()))
            })
            .collect()
    }

    /// All answers that were seen.
    #[must_use]
    pub fn seen(&self) -> BTreeSet<(String, u16)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Whether a value is as a schema in the description says.
    ///
    /// # Errors
    /// Says what is not.
    pub fn valid(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.document["components"],
            "allOf": [schema],
        });
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .map_err(|error| error.to_string())?;
        validator.validate(value).map_err(|error| {
            let place = error.instance_path();
            format!("{place}: {error}")
        })
    }

    /// The description of an operation's answer, without references.
    #[must_use]
    pub fn response(&self, operation: &str, status: u16) -> Option<&Value> {
        let (_, operation) = self.operations().find(|(id, _)| *id == operation)?;
        let response = operation["responses"].get(status.to_string())?;
        Some(self.resolve(response))
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self
                .document
                .pointer(reference.trim_start_matches('#'))
                .expect("references lead somewhere"),
            None => value,
        }
    }

    /// Holds an answer against the description: its status, its headers, its
    /// type and its body.
    #[track_caller]
    pub fn holds(&self, operation: &str, status: u16, answer: &Answer) {
        let about = format!("{operation} {status}");
        assert_eq!(answer.status, status, "{about}: {}", answer.body);
        let response = self.response(operation, status).expect(&about);
        for name in response["headers"].as_object().unwrap().keys() {
            let at_times = match name.as_str() {
                "idempotent-replayed" | "link" | "warning" => true,
                // Trying again does not help when an id is taken.
                "retry-after" => status == 409,
                // Nothing has no version, and nothing done no position.
                "etag" => operation == "active",
                "x-global-position" => operation == "batchUpdate" || operation == "erase",
                _ => false,
            };
            let there = answer.headers.contains_key(name.as_str());
            assert!(there || at_times, "{about}: {name}");
        }
        if let Some(content) = response.get("content") {
            let kind = answer.header("content-type");
            let kind = kind.split(';').next().unwrap();
            let content = content.get(kind);
            let content = content.unwrap_or_else(|| panic!("{about}: {kind}"));
            let valid = self.valid(&content["schema"], &answer.body);
            valid.unwrap_or_else(|error| panic!("{about}: {error} in {}", answer.body));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((operation.to_owned(), status));
    }
}

impl Default for Contract {
    fn default() -> Self {
        Self::new()
    }
}
