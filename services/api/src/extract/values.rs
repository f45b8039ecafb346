//! Values in bodies that need more than a type: tolerant numbers.

use chrono::TimeDelta;
use domain::Position;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

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
        // Everything but "NaN" and "inf".
        let is_decimal = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
        match text.parse() {
            Ok(percent) if text.chars().all(is_decimal) => self.visit_f64(percent),
            _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }
}

/// A number of whole seconds. It may have a fraction of zero, such as `900.0`: some
/// clients write every number as a float.
#[derive(Clone, Copy, Debug)]
pub struct WholeSeconds(pub TimeDelta);

/// About 68 years, which no session exceeds.
const MAX_SECONDS: f64 = i32::MAX as f64;

impl<'de> Deserialize<'de> for WholeSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)
            .ok()
            .filter(|seconds| seconds.fract() == 0.0 && (0.0..=MAX_SECONDS).contains(seconds));
        let seconds = seconds
            .ok_or_else(|| de::Error::custom("must be a whole number of seconds, at least 0"))?;
        #[expect(clippy::cast_possible_truncation, reason = "a whole number in range")]
        let seconds = seconds as i64;
        Ok(Self(TimeDelta::seconds(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_may_be_written_as_a_float() {
        let seconds = |json: &str| {
            let parsed = serde_json::from_str(json).ok();
            parsed.map(|WholeSeconds(delta)| delta.num_seconds())
        };
        for (json, expected) in [("900", 900), ("900.0", 900), ("-0", 0), ("9e2", 900)] {
            assert_eq!(seconds(json), Some(expected), "{json}");
        }
        for rejected in ["-1", "0.5", "1e300", "\"900\"", "null"] {
            assert_eq!(seconds(rejected), None, "{rejected}");
        }
    }

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
        for zero in ["-0", "-1e-13", "\"-1e-13\"", "\"0e0\""] {
            assert_eq!(percent(zero), Some(0.0), "{zero}");
        }
        for end in ["100.00000000000001", "\"100.00000000000001\""] {
            assert_eq!(percent(end), Some(100.0), "{end}");
        }
        for rejected in [
            "-1",
            "101",
            "100.00005",
            "\"-1\"",
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
}
