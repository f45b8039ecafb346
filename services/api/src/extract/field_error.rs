//! Turns the messages of parsers into messages for clients.

use std::fmt;

use serde_path_to_error::Path;

use super::Problem;
use crate::problem::{FieldError, echo};

/// Beginnings of parser messages, and the message for the client.
const CLIENT_MESSAGES: [(&[&str], &str); 3] = [
    (
        &[
            "invalid digit found in string",
            "number too large to fit",
            "number too small to fit",
            "cannot parse integer from empty string",
        ],
        "not a whole number, or too large",
    ),
    (
        &[
            "premature end of input",
            "input contains invalid characters",
            "input is out of range",
            "trailing input",
        ],
        "not a time with a time zone, for example 2026-03-07T20:34:00Z",
    ),
    (&["UUID parsing failed"], "not a UUID"),
];

impl FieldError {
    /// `path` is the path of the invalid field, and `parser_message` the text of the
    /// parser's error, which may contain the invalid value. A path to the whole input gives an empty field.
    #[must_use]
    pub fn from_parser(path: &Path, parser_message: &str) -> Self {
        let path = path.to_string();
        let path = if path == "." { "" } else { &path };
        for (beginning, message) in [
            ("missing field `", "missing"),
            ("duplicate field `", "given more than once"),
        ] {
            if let Some(rest) = parser_message.strip_prefix(beginning)
                && let Some((name, _)) = rest.split_once('`')
            {
                // The path of a duplicate field ends with its name; the path of
                // a missing one ends with its parent.
                let parent = path.strip_suffix(name).unwrap_or(path);
                let parent = parent.trim_end_matches('.');
                let dot = if parent.is_empty() { "" } else { "." };
                return Self {
                    field: echo(&format!("{parent}{dot}{name}")),
                    message: message.to_owned(),
                };
            }
        }
        let client_message = CLIENT_MESSAGES.iter().find(|(beginnings, _)| {
            beginnings
                .iter()
                .any(|beginning| parser_message.starts_with(beginning))
        });
        let message = match client_message {
            Some((_, message)) => (*message).to_owned(),
            // The line and the column of the error are removed: most bodies are
            // one line, and `field` is the path of the error.
            None => parser_message
                .split(" at line ")
                .next()
                .unwrap_or_default()
                .replace("sequence", "list")
                .replace("map", "object"),
        };
        Self {
            field: echo(path),
            message: echo(&message),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::invalid(error.field, error.message)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "the tests only look at errors")]
    struct Body {
        id: Option<Uuid>,
        at: Option<domain::Timestamp>,
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "the tests only look at errors")]
    struct Inner {
        name: String,
    }

    #[rstest]
    #[case("{}", "inner: missing")]
    #[case(r#"{"inner": {}}"#, "inner.name: missing")]
    #[case(
        r#"{"inner": {"name": "a"}, "inner": {"name": "b"}}"#,
        "inner: given more than once"
    )]
    #[case(
        r#"{"inner": {"name": "a", "name": "b"}}"#,
        "inner.name: given more than once"
    )]
    #[case(
        r#"{"inner": {"name": 1}}"#,
        "inner.name: invalid type: integer `1`, expected a string"
    )]
    #[case(
        r#"{"inner": {"name": []}}"#,
        "inner.name: invalid type: list, expected a string"
    )]
    #[case(r#"{"id": "abc"}"#, "id: not a UUID")]
    #[case(
        r#"{"at": "2026-11-23"}"#,
        "at: not a time with a time zone, for example 2026-03-07T20:34:00Z"
    )]
    #[case(
        r#"{"at": "soon"}"#,
        "at: not a time with a time zone, for example 2026-03-07T20:34:00Z"
    )]
    fn parser_error_names_the_field_and_the_cause(#[case] json: &str, #[case] expected: &str) {
        let mut json = serde_json::Deserializer::from_str(json);
        let error = serde_path_to_error::deserialize::<_, Body>(&mut json).unwrap_err();
        let error = FieldError::from_parser(error.path(), &error.inner().to_string());
        assert_eq!(error.to_string(), expected);
    }
}
