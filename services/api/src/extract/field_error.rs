//! What parsers say, as people say it.

use serde_path_to_error::Path;

use super::Problem;

/// What is wrong with which field.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field, as a path; empty for the whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// How parsers begin a sentence, and what they mean.
const MEANINGS: [(&[&str], &str); 3] = [
    (
        &[
            "invalid digit found in string",
            "number too large to fit",
            "number too small to fit",
            "cannot parse integer from empty string",
        ],
        "not a whole number, or one that is too large",
    ),
    (
        &[
            "premature end of input",
            "input contains invalid characters",
            "input is out of range",
            "trailing input",
        ],
        "not a time with its zone, for example 2026-03-07T20:34:00Z",
    ),
    (&["UUID parsing failed"], "not a UUID"),
];

impl Fault {
    /// Of what a parser said at a place.
    #[must_use]
    pub fn new(path: &Path, said: &str) -> Self {
        let path = path.to_string();
        let path = if path == "." { "" } else { &path };
        for (beginning, message) in [
            ("missing field `", "missing"),
            ("duplicate field `", "given twice"),
        ] {
            if let Some(rest) = said.strip_prefix(beginning)
                && let Some((name, _)) = rest.split_once('`')
            {
                // The path of a field that is given twice ends with it.
                let parent = path.strip_suffix(name).unwrap_or(path);
                let parent = parent.trim_end_matches('.');
                let dot = if parent.is_empty() { "" } else { "." };
                return Self {
                    field: format!("{parent}{dot}{name}"),
                    message: message.to_owned(),
                };
            }
        }
        let known = MEANINGS
            .iter()
            .find(|(beginnings, _)| beginnings.iter().any(|known| said.starts_with(known)));
        let message = match known {
            Some((_, meaning)) => (*meaning).to_owned(),
            // The line and column say nothing of a body on one line.
            None => said
                .split(" at line ")
                .next()
                .unwrap_or_default()
                .replace("sequence", "list")
                .replace("map", "object"),
        };
        Self {
            field: path.to_owned(),
            message,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::invalid(fault.field, fault.message)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what does not fit matters")]
    struct Body {
        id: Option<Uuid>,
        at: Option<domain::Timestamp>,
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only what does not fit matters")]
    struct Inner {
        name: String,
    }

    #[rstest]
    #[case("{}", "inner: missing")]
    #[case(r#"{"inner": {}}"#, "inner.name: missing")]
    #[case(
        r#"{"inner": {"name": "a"}, "inner": {"name": "b"}}"#,
        "inner: given twice"
    )]
    #[case(r#"{"inner": {"name": "a", "name": "b"}}"#, "inner.name: given twice")]
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
        "at: not a time with its zone, for example 2026-03-07T20:34:00Z"
    )]
    #[case(
        r#"{"at": "soon"}"#,
        "at: not a time with its zone, for example 2026-03-07T20:34:00Z"
    )]
    fn a_fault_names_the_field_and_says_what_is_wrong(#[case] json: &str, #[case] said: &str) {
        let mut json = serde_json::Deserializer::from_str(json);
        let error = serde_path_to_error::deserialize::<_, Body>(&mut json).unwrap_err();
        let fault = Fault::new(error.path(), &error.inner().to_string());
        assert_eq!(fault.to_string(), said);
    }
}
