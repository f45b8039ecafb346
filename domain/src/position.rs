//! A position in a book: percent read, valid by construction.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::SessionError;

/// Steps in one percent: positions keep four decimals.
const STEPS_PER_PERCENT: i32 = 10_000;
const MAX_STEPS: i32 = 100 * STEPS_PER_PERCENT;

/// How much of a book lies before the reader, from 0 to 100 percent, with four
/// decimals. Kept as a whole number of ten-thousandths of a percent, so that
/// it compares and adds exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(
    transparent,
    description = "Percent of the book, with up to four decimals"
)]
pub struct Position(#[schemars(with = "f64", range(min = 0, max = 100))] i32);

impl Position {
    /// The beginning of the book.
    pub const START: Self = Self(0);

    /// From percent; further decimals than the fourth are rounded.
    ///
    /// # Errors
    /// [`SessionError::Position`] unless `percent` is from 0 to 100.
    pub fn new(percent: f64) -> Result<Self, SessionError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(SessionError::Position);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "0 to 1,000,000 after the check above"
        )]
        Ok(Self((percent * f64::from(STEPS_PER_PERCENT)).round() as i32))
    }

    /// From ten-thousandths of a percent, as the read tables keep it.
    ///
    /// # Errors
    /// [`SessionError::Position`] unless `steps` is from 0 to 1,000,000.
    pub fn from_steps(steps: i32) -> Result<Self, SessionError> {
        if !(0..=MAX_STEPS).contains(&steps) {
            return Err(SessionError::Position);
        }
        Ok(Self(steps))
    }

    /// In ten-thousandths of a percent.
    #[must_use]
    pub const fn steps(self) -> i32 {
        self.0
    }

    /// In percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / f64::from(STEPS_PER_PERCENT)
    }
}

/// Percent from ten-thousandths of a percent, of a difference too.
#[must_use]
pub fn percent(steps: i64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "sums stay far below 2^52 ten-thousandths"
    )]
    let steps = steps as f64;
    steps / f64::from(STEPS_PER_PERCENT)
}

/// Whole percents are written without a decimal point.
impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_percent(i64::from(self.0), serializer)
    }
}

/// Writes ten-thousandths of a percent as percent, whole numbers whole.
///
/// # Errors
/// The serializer's own.
pub fn serialize_percent<S: Serializer>(steps: i64, serializer: S) -> Result<S::Ok, S::Error> {
    let unit = i64::from(STEPS_PER_PERCENT);
    if steps % unit == 0 {
        serializer.serialize_i64(steps / unit)
    } else {
        serializer.serialize_f64(percent(steps))
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
    fn positions_are_written_as_percent(#[case] percent: f64, #[case] json: &str) {
        let position = Position::new(percent).unwrap();
        assert_eq!(serde_json::to_string(&position).unwrap(), json);
        assert_eq!(serde_json::from_str::<Position>(json).unwrap(), position);
    }

    #[rstest]
    #[case(-0.000_1)]
    #[case(100.000_1)]
    #[case(f64::NAN)]
    #[case(f64::INFINITY)]
    #[case(f64::NEG_INFINITY)]
    fn positions_outside_the_book_are_refused(#[case] percent: f64) {
        assert_eq!(Position::new(percent), Err(SessionError::Position));
    }

    #[rstest]
    #[case(-1)]
    #[case(1_000_001)]
    #[case(i32::MIN)]
    #[case(i32::MAX)]
    fn steps_outside_the_book_are_refused(#[case] steps: i32) {
        assert_eq!(Position::from_steps(steps), Err(SessionError::Position));
    }

    #[test]
    fn every_position_survives_percent_and_back() {
        for steps in 0..=MAX_STEPS {
            let position = Position::from_steps(steps).unwrap();
            assert_eq!(position.steps(), steps);
            assert_eq!(Position::new(position.percent()), Ok(position));
        }
    }

    #[test]
    fn positions_survive_json() {
        // 37 has no factor with ten in common, so every decimal is met.
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
