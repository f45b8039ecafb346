//! The commands of client apps. A command contains the client's time, if any,
//! and its arrival time, so that deciding needs no clock.

use chrono::SubsecRound;
use chrono_tz::Tz;

use crate::event::{Book, DeviceType, EndReason};
use crate::ids::{MAX_CLIENT_TIME_AGE, MAX_CLIENT_TIME_LEAD};
use crate::{BookId, Position, ReaderId, SessionError, Timestamp};

/// The time of a command, by the client's clock and by the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// The client's time, never later than `received`; `None` if the client
    /// sent none.
    pub client: Option<Timestamp>,
    /// The arrival time of the command, by the server's clock.
    pub received: Timestamp,
}

impl Occurrence {
    /// Checks the client's time against the server's and truncates both to the
    /// millisecond. A client's time after the arrival becomes the arrival time:
    /// otherwise later observations would look older than this one.
    ///
    /// # Errors
    /// [`SessionError::OccurredAt`] if the client's time is more than
    /// [`MAX_CLIENT_TIME_AGE`] before or [`MAX_CLIENT_TIME_LEAD`] after
    /// `received`.
    pub fn new(client: Option<Timestamp>, received: Timestamp) -> Result<Self, SessionError> {
        let received = received.trunc_subsecs(3);
        if let Some(at) = client
            && (at < received - MAX_CLIENT_TIME_AGE || at > received + MAX_CLIENT_TIME_LEAD)
        {
            return Err(SessionError::OccurredAt);
        }
        Ok(Self {
            client: client.map(|at| at.trunc_subsecs(3).min(received)),
            received,
        })
    }

    /// The client's time, or the arrival time if there is none.
    #[must_use]
    pub fn at(self) -> Timestamp {
        self.client.unwrap_or(self.received)
    }
}

/// Starts a session.
#[derive(Clone, Debug)]
pub struct StartSession {
    pub reader_id: ReaderId,
    pub book_id: BookId,
    pub position: Position,
    pub device_type: Option<DeviceType>,
    /// The device's id in the app's own format.
    pub device_id: Option<String>,
    /// The zone of the reader's calendar days; UTC if it is unknown.
    pub time_zone: Tz,
    /// The exact place in the app's own format, for example an EPUB CFI.
    pub locator: Option<String>,
    pub book: Option<Book>,
    pub occurred: Occurrence,
}

/// Records the reader's position.
#[derive(Clone, Debug)]
pub struct UpdatePosition {
    pub position: Position,
    /// The exact place in the app's own format, for example an EPUB CFI.
    pub locator: Option<String>,
    pub occurred: Occurrence,
}

/// Ends a session.
#[derive(Clone, Debug)]
pub struct EndSession {
    /// The final position; `None` keeps the session's latest one.
    pub position: Option<Position>,
    pub reason: EndReason,
    pub occurred: Occurrence,
}

impl EndSession {
    /// The command that ends the reader's active session because `start` starts
    /// another one: a reader has at most one active session.
    ///
    /// The superseded session keeps its latest position. It ends when the new
    /// session starts, but not before its own latest observation. A repeated
    /// start of an existing session supersedes nothing.
    #[must_use]
    pub fn superseded_by(start: &StartSession) -> Self {
        Self {
            position: None,
            reason: EndReason::Superseded,
            occurred: start.occurred,
        }
    }

    /// The command that ends an idle session at the time of its latest
    /// observation, so that the idle period adds no reading time.
    #[must_use]
    pub fn idle_since(latest_observation: Timestamp) -> Self {
        Self {
            position: None,
            reason: EndReason::Idle,
            occurred: Occurrence {
                client: Some(latest_observation),
                received: latest_observation,
            },
        }
    }
}

/// A command for one reading session.
#[derive(Clone, Debug)]
pub enum SessionCommand {
    Start(StartSession),
    UpdatePosition(UpdatePosition),
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
    #[case::at_the_maximum_age(-MAX_CLIENT_TIME_AGE, true)]
    #[case::above_the_maximum_age(-MAX_CLIENT_TIME_AGE - MS, false)]
    #[case::at_the_maximum_lead(MAX_CLIENT_TIME_LEAD, true)]
    #[case::above_the_maximum_lead(MAX_CLIENT_TIME_LEAD + MS, false)]
    fn client_time_out_of_range_is_refused(#[case] offset: TimeDelta, #[case] accepted: bool) {
        let occurrence = Occurrence::new(Some(now() + offset), now());
        assert_eq!(occurrence.is_ok(), accepted);
        if !accepted {
            assert_eq!(occurrence, Err(SessionError::OccurredAt));
        }
    }

    #[test]
    fn client_time_in_the_future_becomes_the_arrival_time() {
        let occurrence = Occurrence::new(Some(now() + TimeDelta::hours(3)), now()).unwrap();
        assert_eq!(occurrence.client, Some(now()));
        assert_eq!(occurrence.at(), now());
    }

    #[test]
    fn client_time_in_the_past_is_kept() {
        let then = now() - TimeDelta::days(3);
        let occurrence = Occurrence::new(Some(then), now()).unwrap();
        assert_eq!(occurrence.at(), then);
        assert_eq!(occurrence.received, now());
    }

    #[test]
    fn missing_client_time_falls_back_to_the_arrival_time() {
        let occurrence = Occurrence::new(None, now()).unwrap();
        assert_eq!(occurrence.client, None);
        assert_eq!(occurrence.at(), now());
    }

    #[test]
    fn times_are_truncated_to_the_millisecond() {
        let part = TimeDelta::nanoseconds(999_999);
        let occurrence = Occurrence::new(Some(now() - MS + part), now() + part).unwrap();
        assert_eq!(occurrence.client, Some(now() - MS));
        assert_eq!(occurrence.received, now());
    }
}
