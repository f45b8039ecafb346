//! Warnings: what a command contained that the service changed or ignored. A
//! response to an accepted command contains them.

use domain::Timestamp;
use domain::clock::Occurrence;
use serde::Serialize;
use utoipa::ToSchema;

/// The limit of warnings in one response. Further ones are left out: a body of
/// 64 KB can contain thousands of unknown fields.
const MAX_WARNINGS: usize = 100;

/// The kind of a warning. Codes are stable, unlike `message`: match on them. The
/// description of the API lists their meanings. New codes may be added; ignore an
/// unknown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarningCode {
    UnknownField,
    InvalidValue,
    TextCut,
    CharactersRemoved,
    LocatorDropped,
    UnknownTimeZone,
    ClockAhead,
}

/// A part of the command that the service changed or ignored. The command itself
/// took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Warning {
    pub code: WarningCode,
    /// The path of the field, for example `book.title` or `updates[3].locator`.
    pub field: String,
    /// An explanation in English for people. Its wording may change.
    pub message: String,
}

/// The warnings of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Warnings(Vec<Warning>);

impl Warnings {
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, code: WarningCode, field: impl Into<String>, message: impl Into<String>) {
        if self.0.len() < MAX_WARNINGS {
            self.0.push(Warning {
                code,
                field: field.into(),
                message: message.into(),
            });
        }
    }

    /// Warns if the device's clock was ahead, and the client did not send the device's
    /// own time, `sent_at`.
    pub fn add_shift(&mut self, occurred: Occurrence, sent_at: Option<Timestamp>) {
        if occurred.device_time.is_some() && sent_at.is_none() {
            self.add(
                WarningCode::ClockAhead,
                "occurred_at",
                "recorded with an earlier time: it, or a time that follows it, is in the future. \
                 Send sent_at",
            );
        }
    }

    /// Adds the warnings of one item. `item` is its path, for example `updates[3]`.
    pub fn add_item(&mut self, item: &str, warnings: Self) {
        for warning in warnings.0 {
            let field = format!("{item}.{}", warning.field);
            self.add(warning.code, field, warning.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_field(field: &str) -> Warnings {
        let mut warnings = Warnings::default();
        warnings.add(WarningCode::TextCut, field, "cut");
        warnings
    }

    #[test]
    fn warnings_of_an_item_contain_its_path() {
        let mut warnings = of_field("title");
        warnings.add_item("updates[3]", of_field("locator"));
        assert_eq!(
            serde_json::to_value(warnings).unwrap(),
            serde_json::json!([
                { "code": "text_cut", "field": "title", "message": "cut" },
                { "code": "text_cut", "field": "updates[3].locator", "message": "cut" },
            ])
        );
    }

    #[test]
    fn number_of_warnings_is_bounded() {
        let mut warnings = Warnings::default();
        for _ in 0..=MAX_WARNINGS {
            warnings.add_item("sessions[0]", of_field("locator"));
        }
        assert_eq!(warnings.0.len(), MAX_WARNINGS);
    }
}
