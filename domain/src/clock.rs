//! Places the times of client devices in the server's time. Devices have wrong clocks,
//! and they send observations late.

use chrono::{SubsecRound, TimeDelta};

use crate::ids::MAX_CLIENT_TIME_AGE;
use crate::{SessionError, Timestamp};

/// A smaller difference between the arrival and `sent_at` is the duration of the
/// request, and not an error of the device's clock. Without this limit, each request
/// would shift its times by another amount: an end could precede the last observation
/// of the same moment, which would then not count.
pub const MAX_REQUEST_DURATION: TimeDelta = TimeDelta::seconds(15);

/// Times that differ more from the arrival count as this much earlier or later, so that
/// the computations with them cannot overflow.
const MAX_CLOCK_ERROR: TimeDelta = TimeDelta::days(73_000);

/// The time of a command, by the client's clock and by the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The client's time in the server's time, never later than `received`; `None`
    /// if the client sent none.
    pub client: Option<Timestamp>,
    /// The client's time as it was sent, if it differs from `client`.
    pub device_time: Option<Timestamp>,
    /// The arrival time of the command, by the server's clock.
    pub received: Timestamp,
}

impl Occurrence {
    /// The occurrence of a command that has one time. `sent_at` is the device's own
    /// time at which it sent the command.
    ///
    /// # Errors
    /// [`SessionError::OccurredAt`] if the placed time is more than
    /// [`MAX_CLIENT_TIME_AGE`] before `received`.
    pub fn new(
        client: Option<Timestamp>,
        sent_at: Option<Timestamp>,
        received: Timestamp,
    ) -> Result<Self, SessionError> {
        let mut placed = place(&[client], sent_at, received);
        placed.pop().expect("one occurrence for each time")
    }

    /// The occurrence of a command without a client's time.
    #[must_use]
    pub fn untimed(received: Timestamp) -> Self {
        Self {
            client: None,
            device_time: None,
            received: received.trunc_subsecs(3),
        }
    }

    /// The client's time, or the arrival time if there is none.
    #[must_use]
    pub fn at(self) -> Timestamp {
        self.client.unwrap_or(self.received)
    }
}

/// A time with millisecond precision. A leap second becomes the second that follows
/// it: `23:59:60` is `00:00:00` of the next day.
#[must_use]
pub fn normalize(time: Timestamp) -> Timestamp {
    // chrono represents a leap second as a fraction of more than one second.
    let nanos = i64::from(time.timestamp_subsec_nanos());
    let whole = Timestamp::from_timestamp(time.timestamp(), 0).unwrap_or(time);
    whole
        .checked_add_signed(TimeDelta::nanoseconds(nanos))
        .unwrap_or(Timestamp::MAX_UTC)
        .trunc_subsecs(3)
}

/// A device's time in the server's time: shifted by the difference between the arrival
/// and `sent_at`, the device's own time at which it sent the command. A difference of at
/// most [`MAX_REQUEST_DURATION`] shifts nothing.
#[must_use]
pub fn shifted(time: Timestamp, sent_at: Option<Timestamp>, received: Timestamp) -> Timestamp {
    let shift = sent_at
        .map(|sent_at| received - normalize(sent_at))
        .filter(|shift| shift.abs() > MAX_REQUEST_DURATION)
        .unwrap_or_default();
    // Out of chrono's range: as early as possible, which every caller refuses.
    normalize(time)
        .checked_add_signed(shift)
        .unwrap_or(Timestamp::MIN_UTC)
}

/// Places the times of one command's items, in the order in which the device recorded
/// them. The result has one occurrence for each item.
///
/// With `sent_at`, all times are shifted by the difference between the arrival and
/// `sent_at`. Afterwards, a time ahead of the arrival is certainly wrong. A run of such
/// times keeps its spacing and is shifted as a whole: it ends at the next item of the
/// command, or at the arrival. If the shifted run would not begin after the item in front
/// of it, then that item has the same wrong clock and is shifted too.
///
/// Items without a time arrive one millisecond apart, the last one at `received`.
///
/// # Errors
/// [`SessionError::OccurredAt`] for an item whose placed time is more than
/// [`MAX_CLIENT_TIME_AGE`] before `received`.
#[must_use]
pub fn place(
    times: &[Option<Timestamp>],
    sent_at: Option<Timestamp>,
    received: Timestamp,
) -> Vec<Result<Occurrence, SessionError>> {
    let received = received.trunc_subsecs(3);
    let sent: Vec<Option<Timestamp>> = times.iter().map(|time| time.map(normalize)).collect();
    let mut placed: Vec<Timestamp> = sent
        .iter()
        .flatten()
        .map(|time| shifted(*time, sent_at, received))
        .map(|time| time.clamp(received - MAX_CLOCK_ERROR, received + MAX_CLOCK_ERROR))
        .collect();
    shift_runs(&mut placed, received);
    let mut placed = placed.into_iter();
    (0..)
        .zip(&sent)
        .map(|(index, sent)| {
            let after = i64::try_from(times.len()).unwrap_or(i64::MAX) - 1 - index;
            let client = sent.and_then(|_| placed.next());
            if client.is_some_and(|at| at < received - MAX_CLIENT_TIME_AGE) {
                return Err(SessionError::OccurredAt);
            }
            Ok(Occurrence {
                client,
                device_time: sent.filter(|_| *sent != client),
                received: match client {
                    Some(_) => received,
                    None => received - TimeDelta::milliseconds(after),
                },
            })
        })
        .collect()
}

/// Shifts each run of times after `received`, see [`place`].
fn shift_runs(times: &mut [Timestamp], received: Timestamp) {
    let mut begin = 0;
    while let Some(ahead) = times[begin..].iter().position(|time| *time > received) {
        let first_ahead = begin + ahead;
        let run = &times[first_ahead..];
        let length = run.iter().take_while(|time| **time > received).count();
        let end = first_ahead + length;
        let last = run[..length].iter().max().copied().unwrap_or(received);
        let anchor = times.get(end).copied().unwrap_or(received);
        let shift = last - anchor;
        let mut first = first_ahead;
        while first > begin
            && times[first - 1] <= times[first]
            && times[first - 1] >= times[first] - shift
        {
            first -= 1;
        }
        for time in &mut times[first..end] {
            *time -= shift;
        }
        begin = end;
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use rstest::rstest;

    use super::*;

    const MS: TimeDelta = TimeDelta::milliseconds(1);

    fn now() -> Timestamp {
        DateTime::from_timestamp_millis(1_790_000_000_000).unwrap()
    }

    fn minutes(minutes: i64) -> Timestamp {
        now() + TimeDelta::minutes(minutes)
    }

    /// The placed times in minutes after the arrival.
    fn placed(times: &[i64], sent_at: Option<i64>) -> Vec<i64> {
        let times: Vec<_> = times.iter().map(|time| Some(minutes(*time))).collect();
        place(&times, sent_at.map(minutes), now())
            .into_iter()
            .map(|occurrence| (occurrence.unwrap().at() - now()).num_minutes())
            .collect()
    }

    #[rstest]
    #[case::plausible(&[-30, -20, -10], None, &[-30, -20, -10])]
    #[case::clock_ahead(&[175, 178, 180], Some(180), &[-5, -2, 0])]
    #[case::clock_behind(&[-185, -182], Some(-180), &[-5, -2])]
    #[case::run_at_the_end(&[-30, -20, 175, 178], None, &[-30, -20, -3, 0])]
    #[case::run_before_a_plausible_time(&[175, 178, -1], None, &[-4, -1, -1])]
    #[case::two_runs(&[100, 101, -5, 200, 203], None, &[-6, -5, -5, -3, 0])]
    #[case::run_continues_plausible_times(&[-28, -10, 0, 6, 12], None, &[-28, -22, -12, -6, 0])]
    #[case::clock_was_set_back(&[150, 160, -20, -10], None, &[-30, -20, -20, -10])]
    #[case::run_out_of_order(&[180, 175, 178], None, &[0, -5, -2])]
    #[case::item_after_sending(&[0, 5], Some(0), &[-5, 0])]
    fn times_of_a_command_are_placed_before_the_arrival(
        #[case] times: &[i64],
        #[case] sent_at: Option<i64>,
        #[case] expected: &[i64],
    ) {
        assert_eq!(placed(times, sent_at), expected);
    }

    #[rstest]
    #[case::of_the_request(TimeDelta::milliseconds(-700), TimeDelta::zero())]
    #[case::at_the_limit(-MAX_REQUEST_DURATION, TimeDelta::zero())]
    #[case::above_the_limit(-MAX_REQUEST_DURATION - MS, MAX_REQUEST_DURATION + MS)]
    #[case::slightly_ahead(TimeDelta::seconds(8), TimeDelta::zero())]
    #[case::ahead(TimeDelta::seconds(16), TimeDelta::seconds(-16))]
    fn duration_of_the_request_shifts_nothing(
        #[case] sent_at: TimeDelta,
        #[case] expected: TimeDelta,
    ) {
        let placed = shifted(minutes(-5), Some(now() + sent_at), now());
        assert_eq!(placed - minutes(-5), expected);
    }

    #[test]
    fn clock_without_battery_is_placed_by_the_time_of_sending() {
        let in_2000 = |minutes| {
            DateTime::from_timestamp(946_684_800, 0).unwrap() + TimeDelta::minutes(minutes)
        };
        let placed = place(
            &[Some(in_2000(1)), Some(in_2000(3))],
            Some(in_2000(5)),
            now(),
        );
        let first = placed[0].unwrap();
        assert_eq!(first.at(), minutes(-4));
        assert_eq!(first.device_time, Some(in_2000(1)));
        assert_eq!(placed[1].unwrap().at(), minutes(-2));
    }

    #[rstest]
    #[case::at_the_maximum_age(-MAX_CLIENT_TIME_AGE, true)]
    #[case::above_the_maximum_age(-MAX_CLIENT_TIME_AGE - MS, false)]
    #[case::far_ahead(TimeDelta::days(36_500), true)]
    fn only_times_too_long_ago_are_refused(#[case] offset: TimeDelta, #[case] accepted: bool) {
        let occurrence = Occurrence::new(Some(now() + offset), None, now());
        let expected = if accepted {
            Ok(())
        } else {
            Err(SessionError::OccurredAt)
        };
        assert_eq!(occurrence.map(|_| ()), expected);
    }

    #[test]
    fn extreme_times_are_refused_or_placed_without_overflow() {
        let leap: Timestamp = "+262142-12-31T23:59:60Z".parse().unwrap();
        let extremes = [Timestamp::MIN_UTC, Timestamp::MAX_UTC, leap];
        let sent_times = extremes.into_iter().map(Some).chain([None]);
        for sent_at in sent_times {
            for time in extremes {
                let times = [Some(time), Some(minutes(1)), Some(Timestamp::MAX_UTC)];
                for occurrence in place(&times, sent_at, now()) {
                    assert!(
                        occurrence.is_err_and(|error| error == SessionError::OccurredAt)
                            || occurrence.is_ok_and(|occurrence| occurrence.at() <= now())
                    );
                }
            }
        }
    }

    #[test]
    fn plausible_time_is_kept() {
        let occurrence = Occurrence::new(Some(minutes(-3)), None, now()).unwrap();
        assert_eq!(occurrence.at(), minutes(-3));
        assert_eq!((occurrence.device_time, occurrence.received), (None, now()));
    }

    #[test]
    fn items_without_a_time_arrive_one_after_the_other() {
        let placed = place(&[None, Some(minutes(-1)), None], None, now());
        let placed: Vec<_> = placed.into_iter().map(|item| item.unwrap().at()).collect();
        assert_eq!(placed, [now() - MS - MS, minutes(-1), now()]);
    }

    #[rstest]
    #[case("2026-06-30T23:59:60Z", "2026-07-01T00:00:00Z")]
    #[case("2026-06-30T12:34:60.250Z", "2026-06-30T12:35:00.250Z")]
    #[case("2026-06-30T12:34:59.999999Z", "2026-06-30T12:34:59.999Z")]
    fn leap_second_is_the_next_second(#[case] sent: Timestamp, #[case] expected: Timestamp) {
        assert_eq!(normalize(sent), expected);
    }
}
