//! The binary form of `tstzmultirange`, for which sqlx has no type. Texts of many time
//! stamps are expensive for both sides.
//!
//! The form is that of `multirange_send` and `range_send` in Postgres: the number of
//! ranges; for each its length, its flags, and its bounds with their lengths. A bound is a
//! `timestamptz`: microseconds since 2000.

use domain::{Interval, Intervals, Timestamp};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};
use thiserror::Error;

/// The flags of a range with both bounds, of which it contains the lower one.
const LOWER_INCLUSIVE: u8 = 0x02;

/// The length of such a range in bytes.
const RANGE_BYTES: i32 = 1 + 2 * (4 + BOUND_BYTES);
const BOUND_BYTES: i32 = 8;

/// 2000-01-01 in microseconds of Unix time.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Intervals as a parameter of a statement.
#[derive(Clone, Copy)]
pub(super) struct Multirange<'a>(pub(super) &'a Intervals);

/// The ids of built-in types are part of Postgres's protocol (`pg_type.dat`).
impl Type<Postgres> for Multirange<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(4_534))
    }
}

impl PgHasArrayType for Multirange<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(6_153))
    }
}

impl Encode<'_, Postgres> for Multirange<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let count = i32::try_from(self.0.iter().count())?;
        buffer.extend(count.to_be_bytes());
        for interval in self.0.iter() {
            buffer.extend(RANGE_BYTES.to_be_bytes());
            buffer.push(LOWER_INCLUSIVE);
            for bound in [interval.from, interval.to()] {
                buffer.extend(BOUND_BYTES.to_be_bytes());
                buffer.extend((bound.timestamp_micros() - EPOCH_MICROS).to_be_bytes());
            }
        }
        Ok(IsNull::No)
    }
}

/// The bytes are not those of a multirange that this module has written.
#[derive(Debug, Error)]
#[error("a multirange without the expected form")]
pub(super) struct MalformedMultirange;

/// The intervals in the result of `multirange_send`.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Intervals, MalformedMultirange> {
    let intervals = (0..int4(&mut bytes)?).map(|_| interval(&mut bytes));
    let intervals: Vec<Interval> = intervals.collect::<Result<_, _>>()?;
    Ok(Intervals::union(intervals))
}

fn interval(bytes: &mut &[u8]) -> Result<Interval, MalformedMultirange> {
    let _length = int4(bytes)?;
    let [LOWER_INCLUSIVE] = take(bytes)? else {
        return Err(MalformedMultirange);
    };
    let (from, to) = (bound(bytes)?, bound(bytes)?);
    Interval::between(from, to).ok_or(MalformedMultirange)
}

fn bound(bytes: &mut &[u8]) -> Result<Timestamp, MalformedMultirange> {
    let _length = int4(bytes)?;
    let micros = i64::from_be_bytes(take(bytes)?).checked_add(EPOCH_MICROS);
    let bound = micros.and_then(Timestamp::from_timestamp_micros);
    bound.ok_or(MalformedMultirange)
}

fn int4(bytes: &mut &[u8]) -> Result<i32, MalformedMultirange> {
    Ok(i32::from_be_bytes(take(bytes)?))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], MalformedMultirange> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(MalformedMultirange)?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn encoded_intervals_are_decoded() {
        for intervals in [
            Intervals::default(),
            Intervals::union([Interval { from: at(0), ms: 1 }]),
            Intervals::union([
                Interval { from: at(0), ms: 1 },
                Interval {
                    from: at(60),
                    ms: 5_000,
                },
            ]),
        ] {
            let mut buffer = PgArgumentBuffer::default();
            let _ = Multirange(&intervals).encode_by_ref(&mut buffer).unwrap();
            assert_eq!(decode(&buffer).unwrap(), intervals);
            for length in 0..buffer.len() {
                assert!(decode(&buffer[..length]).is_err());
            }
        }
    }
}
