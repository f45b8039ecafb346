//! Checks responses of the service against its OpenAPI document.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::reader::ApiResponse;

/// An OpenAPI document, and the responses that tests have checked against it.
pub struct Contract {
    document: Value,
    seen: Mutex<BTreeSet<(String, u16)>>,
}

impl Contract {
    /// The document that the code generates.
    #[must_use]
    pub fn new() -> Self {
        Self::from_document(api::openapi::document())
    }

    #[must_use]
    pub fn from_document(document: Value) -> Self {
        Self {
            document,
            seen: Mutex::default(),
        }
    }

    /// The operations with their ids.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &Value)> {
        let paths = self.document["paths"].as_object().unwrap().values();
        paths
            .flat_map(|methods| methods.as_object().unwrap().values())
            .map(|operation| (operation["operationId"].as_str().unwrap(), operation))
    }

    /// All documented responses: operation and status.
    #[must_use]
    pub fn described(&self) -> BTreeSet<(String, u16)> {
        self.operations()
            .flat_map(|(id, operation)| {
                let statuses = operation["responses"].as_object().unwrap().keys();
                statuses.map(move |status| (id.to_owned(), status.parse().unwrap()))
            })
            .collect()
    }

    /// All responses that were checked: operation and status.
    #[must_use]
    pub fn seen(&self) -> BTreeSet<(String, u16)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// Validates a value against a schema of the document.
    ///
    /// # Errors
    /// A description of the first violation.
    pub fn validate(&self, schema: &Value, value: &Value) -> Result<(), String> {
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
            let path = error.instance_path();
            format!("{path}: {error}")
        })
    }

    /// The documented response of an operation, with its reference resolved.
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
                .expect("a reference that resolves"),
            None => value,
        }
    }

    /// Checks the status, headers, content type and body of a response.
    ///
    /// # Panics
    /// If the document does not describe the response.
    #[track_caller]
    pub fn check(&self, operation: &str, status: u16, response: &ApiResponse) {
        let about = format!("{operation} {status}");
        assert_eq!(response.status, status, "{about}: {}", response.body);
        let documented = self.response(operation, status).expect(&about);
        for name in documented["headers"].as_object().unwrap().keys() {
            let is_optional = match name.as_str() {
                "idempotent-replayed" | "link" | "warning" => true,
                // A conflict over a session id is permanent: a retry cannot succeed.
                "retry-after" => status == 409,
                // Without an active session there is no version.
                "etag" => operation == "active",
                // A command that appends nothing has no global position.
                "x-global-position" => ["batchUpdate", "sync", "erase"].contains(&operation),
                _ => false,
            };
            let is_present = response.headers.contains_key(name.as_str());
            assert!(is_present || is_optional, "{about}: {name}");
        }
        if let Some(content) = documented.get("content") {
            let media_type = response.header("content-type");
            let media_type = media_type.split(';').next().unwrap();
            let content = content.get(media_type);
            let content = content.unwrap_or_else(|| panic!("{about}: {media_type}"));
            let valid = self.validate(&content["schema"], &response.body);
            valid.unwrap_or_else(|error| panic!("{about}: {error} in {}", response.body));
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
