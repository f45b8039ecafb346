//! What a reader's app asks for. Commands say when it happened and when it
//! arrived; deciding reads no clock.

use chrono::SubsecRound;
use chrono_tz::Tz;

use crate::event::{Book, DeviceType, EndReason};
use crate::ids::{MAX_CLOCK_LEAD, MAX_ID_AGE};
use crate::{BookId, Position, ReaderId, SessionError, Timestamp};

/// When something happened, by the client's clock where it said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The client's time; `None` when it gave none.
    pub client: Option<Timestamp>,
    /// When the command arrived, by the server's clock.
    pub received: Timestamp,
}

impl Occurrence {
    /// Checks a client's time against the server's. Both are cut to the
    /// millisecond, and a client's clock that runs ahead is held back to the
    /// moment of arrival: otherwise it would outdate every later observation.
    ///
    /// # Errors
    /// [`SessionError::OccurredAt`] when the client's time is more than 30
    /// days old or more than 24 hours ahead.
    pub fn new(client: Option<Timestamp>, received: Timestamp) -> Result<Self, SessionError> {
        let received = received.trunc_subsecs(3);
        if let Some(at) = client
            && (at < received - MAX_ID_AGE || at > received + MAX_CLOCK_LEAD)
        {
            return Err(SessionError::OccurredAt);
        }
        Ok(Self {
            client: client.map(|at| at.trunc_subsecs(3).min(received)),
            received,
        })
    }

    /// The client's time, else the time of arrival.
    #[must_use]
    pub fn at(self) -> Timestamp {
        self.client.unwrap_or(self.received)
    }
}

/// Begin to read.
#[derive(Clone, Debug)]
pub struct StartSession {
    /// Who reads.
    pub reader_id: ReaderId,
    /// What is read.
    pub book_id: BookId,
    /// Where reading starts.
    pub position: Position,
    /// The kind of device.
    pub device_type: Option<DeviceType>,
    /// The device, as the app names it.
    pub device_id: Option<String>,
    /// The reader's zone; decides what a reading day is. UTC when unknown.
    pub time_zone: Tz,
    /// The exact place, opaque to the service.
    pub locator: Option<String>,
    /// What the app knows about the book.
    pub book: Option<Book>,
    /// When.
    pub occurred: Occurrence,
}

/// The reader is at this place.
#[derive(Clone, Debug)]
pub struct UpdatePosition {
    /// The place.
    pub position: Position,
    /// The exact place, opaque to the service.
    pub locator: Option<String>,
    /// When.
    pub occurred: Occurrence,
}

/// Stop reading.
#[derive(Clone, Debug)]
pub struct EndSession {
    /// The last place; `None` leaves it where it was.
    pub position: Option<Position>,
    /// Why.
    pub reason: EndReason,
    /// When.
    pub occurred: Occurrence,
}

/// A command for one reading session.
#[derive(Clone, Debug)]
pub enum SessionCommand {
    /// Begin to read.
    Start(StartSession),
    /// The reader is at this place.
    UpdatePosition(UpdatePosition),
    /// Stop reading.
    End(EndSession),
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, TimeDelta};
    use rstest::rstest;

    const MS: TimeDelta = TimeDelta::milliseconds(1);

    fn now() -> Timestamp {
        DateTime::from_timestamp_millis(1_790_000_000_000).unwrap()
    }

    #[rstest]
    #[case::now(TimeDelta::zero(), true)]
    #[case::thirty_days_old(-MAX_ID_AGE, true)]
    #[case::older(-MAX_ID_AGE - MS, false)]
    #[case::a_day_ahead(MAX_CLOCK_LEAD, true)]
    #[case::further_ahead(MAX_CLOCK_LEAD + MS, false)]
    fn a_clients_time_is_a_recent_one(#[case] offset: TimeDelta, #[case] accepted: bool) {
        let occurrence = Occurrence::new(Some(now() + offset), now());
        assert_eq!(occurrence.is_ok(), accepted);
        if !accepted {
            assert_eq!(occurrence, Err(SessionError::OccurredAt));
        }
    }

    #[test]
    fn a_clock_that_runs_ahead_is_held_back_to_the_arrival() {
        let occurrence = Occurrence::new(Some(now() + TimeDelta::hours(3)), now()).unwrap();
        assert_eq!(occurrence.client, Some(now()));
        assert_eq!(occurrence.at(), now());
    }

    #[test]
    fn a_client_that_read_offline_keeps_its_time() {
        let then = now() - TimeDelta::days(3);
        let occurrence = Occurrence::new(Some(then), now()).unwrap();
        assert_eq!(occurrence.at(), then);
        assert_eq!(occurrence.received, now());
    }

    #[test]
    fn without_a_clients_time_the_arrival_counts() {
        let occurrence = Occurrence::new(None, now()).unwrap();
        assert_eq!(occurrence.client, None);
        assert_eq!(occurrence.at(), now());
    }

    #[test]
    fn times_are_cut_to_the_millisecond() {
        let part = TimeDelta::nanoseconds(999_999);
        let occurrence = Occurrence::new(Some(now() - MS + part), now() + part).unwrap();
        assert_eq!(occurrence.client, Some(now() - MS));
        assert_eq!(occurrence.received, now());
    }
}
