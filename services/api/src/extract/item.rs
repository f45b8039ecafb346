//! Items of a list in a body. They are parsed one by one, so that an invalid one does not
//! block the others.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::JsonObject;
use crate::problem::{FieldError, echo};

/// Parses an item, which must be an object.
pub fn parse<'a, T: Deserialize<'a>>(item: &'a RawValue) -> Result<T, FieldError> {
    let mut json = serde_json::Deserializer::from_str(item.get());
    match serde_path_to_error::deserialize(&mut json) {
        Ok(JsonObject(parsed)) => Ok(parsed),
        Err(error) => Err(FieldError::from_parser(
            error.path(),
            &error.inner().to_string(),
        )),
    }
}

/// The `session_id` of an invalid item, if it is a string.
#[must_use]
pub fn session_id(item: &RawValue) -> Option<String> {
    let item: Value = serde_json::from_str(item.get()).ok()?;
    Some(echo(item.get("session_id")?.as_str()?))
}
