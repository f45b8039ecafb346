//! Values in bodies that need more than a type: tolerant numbers and bounded
//! text.

use domain::Position;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use crate::problem::Problem;

/// A position in a book: a number, or a number in a string, which clients of the
/// original service send.
#[derive(Clone, Copy, Debug)]
pub struct Percent(pub Position);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PercentVisitor)
    }
}

struct PercentVisitor;

impl Visitor<'_> for PercentVisitor {
    type Value = Percent;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number from 0 to 100")
    }

    fn visit_f64<E: de::Error>(self, percent: f64) -> Result<Percent, E> {
        Position::new(percent).map(Percent).map_err(E::custom)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "only numbers far outside 0 to 100 lose precision"
    )]
    fn visit_u64<E: de::Error>(self, percent: u64) -> Result<Percent, E> {
        self.visit_f64(percent as f64)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "only numbers far outside 0 to 100 lose precision"
    )]
    fn visit_i64<E: de::Error>(self, percent: i64) -> Result<Percent, E> {
        self.visit_f64(percent as f64)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Percent, E> {
        let is_decimal = |c: char| c.is_ascii_digit() || c == '.';
        match text.parse() {
            Ok(percent) if text.chars().all(is_decimal) => self.visit_f64(percent),
            _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }
}

/// Deserializes a whole number, or null. The number may have a fraction of zero,
/// such as `300.0`: some clients write every number as a float.
///
/// # Errors
/// Fails if the number is not whole or does not fit.
pub fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    let whole = |number: serde_json::Number| {
        let written = number.to_string();
        let digits = written.strip_suffix(".0").unwrap_or(&written);
        digits.parse().map_err(|_| {
            let max = u32::MAX;
            de::Error::custom(format!("{number} is not a whole number from 0 to {max}"))
        })
    };
    number.map(whole).transpose()
}

/// Checks a text that is stored unchanged. Postgres cannot store NUL characters.
///
/// # Errors
/// 422 if the text is longer than `max` characters or contains NUL.
pub fn bounded_text(
    field: &str,
    text: Option<String>,
    max: usize,
) -> Result<Option<String>, Problem> {
    match &text {
        Some(text) if text.chars().count() > max => Err(Problem::invalid(
            field,
            format!("longer than {max} characters"),
        )),
        Some(text) if text.contains('\0') => {
            Err(Problem::invalid(field, "contains a NUL character"))
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(json: &str) -> Option<f64> {
        serde_json::from_str(json)
            .ok()
            .map(|Percent(position)| position.percent())
    }

    #[test]
    fn percent_may_be_a_number_or_a_string() {
        assert_eq!(percent("42"), Some(42.0));
        assert_eq!(percent("42.5"), Some(42.5));
        assert_eq!(percent("\"42\""), Some(42.0));
        for rejected in [
            "-1",
            "101",
            "1e400",
            "\"NaN\"",
            "\"inf\"",
            "true",
            "null",
            "[]",
            "\"\"",
            "18446744073709551615",
        ] {
            assert_eq!(percent(rejected), None, "{rejected}");
        }
    }

    #[test]
    fn whole_number_may_have_a_fraction_of_zero() {
        let parse = |json: &str| whole_number(&mut serde_json::Deserializer::from_str(json)).ok();
        assert_eq!(parse("300"), Some(Some(300)));
        assert_eq!(parse("300.0"), Some(Some(300)));
        assert_eq!(parse("3e2"), Some(Some(300)));
        assert_eq!(parse("null"), Some(None));
        for rejected in ["-1", "0.5", "1e12", "\"300\"", "[]"] {
            assert_eq!(parse(rejected), None, "{rejected}");
        }
    }
}
