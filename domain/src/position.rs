//! A position in a book, valid by construction.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::SessionError;

/// A step is a ten-thousandth of a percent: positions have four decimals.
const STEPS_PER_PERCENT: i32 = 10_000;
const MAX_STEPS: i32 = 100 * STEPS_PER_PERCENT;

/// A position in a book, as a percentage from 0 to 100 with at most four
/// decimals. It is stored as a whole number of ten-thousandths of a percent, so
/// that comparisons and sums are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(
    transparent,
    description = "A position in a book, as a percentage with at most four decimals."
)]
pub struct Position(#[schemars(with = "f64", range(min = 0, max = 100))] i32);

impl Position {
    /// The beginning of the book.
    pub const START: Self = Self(0);

    /// Creates a position from a percentage. Rounds it to four decimals before it
    /// checks the range: apps compute percentages, and the end of a book is
    /// `100.00000000000001` to some of them.
    ///
    /// # Errors
    /// [`SessionError::Position`] unless the rounded percentage is from 0 to 100.
    pub fn new(percent: f64) -> Result<Self, SessionError> {
        let steps = (percent * f64::from(STEPS_PER_PERCENT)).round();
        if !(0.0..=f64::from(MAX_STEPS)).contains(&steps) {
            return Err(SessionError::Position);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "0 to 1,000,000 after the check above"
        )]
        Ok(Self(steps as i32))
    }

    /// Creates a position from ten-thousandths of a percent, the unit of the read
    /// tables.
    ///
    /// # Errors
    /// [`SessionError::Position`] unless `steps` is from 0 to 1,000,000.
    pub fn from_steps(steps: i32) -> Result<Self, SessionError> {
        if !(0..=MAX_STEPS).contains(&steps) {
            return Err(SessionError::Position);
        }
        Ok(Self(steps))
    }

    /// The position in ten-thousandths of a percent.
    #[must_use]
    pub const fn steps(self) -> i32 {
        self.0
    }

    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / f64::from(STEPS_PER_PERCENT)
    }
}

/// Converts steps to percent. `steps` may be a difference between positions or a
/// sum of differences.
fn percent_from_steps(steps: i64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "sums stay far below 2^52 ten-thousandths"
    )]
    let steps = steps as f64;
    steps / f64::from(STEPS_PER_PERCENT)
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_percent(i64::from(self.0), serializer)
    }
}

/// Serializes ten-thousandths of a percent as percent. Whole percentages are
/// serialized without a decimal point.
pub fn serialize_percent<S: Serializer>(steps: i64, serializer: S) -> Result<S::Ok, S::Error> {
    let unit = i64::from(STEPS_PER_PERCENT);
    if steps % unit == 0 {
        serializer.serialize_i64(steps / unit)
    } else {
        serializer.serialize_f64(percent_from_steps(steps))
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0.0, "0")]
    #[case(42.0, "42")]
    #[case(42.5, "42.5")]
    #[case(33.333_333, "33.3333")]
    #[case(99.999_96, "100")]
    #[case(0.000_1, "0.0001")]
    fn position_serializes_as_percent_with_four_decimals(#[case] percent: f64, #[case] json: &str) {
        let position = Position::new(percent).unwrap();
        assert_eq!(serde_json::to_string(&position).unwrap(), json);
        assert_eq!(serde_json::from_str::<Position>(json).unwrap(), position);
    }

    #[rstest]
    #[case(100.000_000_000_000_01, MAX_STEPS)]
    #[case(100.000_049, MAX_STEPS)]
    #[case(-1e-13, 0)]
    #[case(-0.000_049, 0)]
    #[case(-0.0, 0)]
    #[case(0.000_05, 1)]
    fn percentage_is_rounded_before_its_range_is_checked(#[case] percent: f64, #[case] steps: i32) {
        let position = Position::new(percent).unwrap();
        assert_eq!(position.steps(), steps);
        assert!(position.percent().is_sign_positive());
    }

    #[rstest]
    #[case(-0.000_1)]
    #[case(-0.000_05)]
    #[case(100.000_05)]
    #[case(100.000_1)]
    #[case(1e300)]
    #[case(f64::NAN)]
    #[case(f64::INFINITY)]
    #[case(f64::NEG_INFINITY)]
    fn percentage_out_of_range_is_refused(#[case] percent: f64) {
        assert_eq!(Position::new(percent), Err(SessionError::Position));
    }

    #[rstest]
    #[case(-1)]
    #[case(1_000_001)]
    #[case(i32::MIN)]
    #[case(i32::MAX)]
    fn steps_out_of_range_are_refused(#[case] steps: i32) {
        assert_eq!(Position::from_steps(steps), Err(SessionError::Position));
    }

    #[test]
    fn every_position_round_trips_through_percent() {
        for steps in 0..=MAX_STEPS {
            let position = Position::from_steps(steps).unwrap();
            assert_eq!(position.steps(), steps);
            assert_eq!(Position::new(position.percent()), Ok(position));
        }
    }

    #[test]
    fn positions_round_trip_through_json() {
        // 37 and 10 have no common factor, so every digit occurs in every
        // decimal place.
        for steps in (0..=MAX_STEPS)
            .step_by(37)
            .chain([1, MAX_STEPS - 1, MAX_STEPS])
        {
            let position = Position::from_steps(steps).unwrap();
            let json = serde_json::to_string(&position).unwrap();
            assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
            assert!(json.len() <= "99.9999".len(), "{json} has four decimals");
        }
    }
}
