//! Whether a session that its reader has not ended is active. This depends on the
//! reader's other sessions.

use crate::Timestamp;
use crate::event::EndReason;

/// The state of a session that its reader has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It has the reader's newest observation.
    #[default]
    Active,
    /// The reader has a newer observation in another session.
    Superseded,
}

impl Standing {
    /// The standing of a session. `latest` is the time of its latest observation.
    /// `newest_elsewhere` is that of the newest one in the reader's other sessions; `None`
    /// if there is none. If two times are equal, the observation that arrives later is the
    /// newer one.
    #[must_use]
    pub fn new(latest: Timestamp, newest_elsewhere: Option<Timestamp>) -> Self {
        if newest_elsewhere.is_some_and(|newest| newest > latest) {
            Self::Superseded
        } else {
            Self::Active
        }
    }

    /// Why the session has ended; `None` if it is active.
    #[must_use]
    pub const fn end_reason(self) -> Option<EndReason> {
        match self {
            Self::Active => None,
            Self::Superseded => Some(EndReason::Superseded),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::alone(0, None, Standing::Active)]
    #[case::newest(10, Some(9), Standing::Active)]
    #[case::of_equal_time(10, Some(10), Standing::Active)]
    #[case::older(10, Some(11), Standing::Superseded)]
    fn newest_observation_makes_a_session_active(
        #[case] latest: i64,
        #[case] elsewhere: Option<i64>,
        #[case] expected: Standing,
    ) {
        let at = |seconds| DateTime::from_timestamp(1_790_000_000 + seconds, 0).unwrap();
        let standing = Standing::new(at(latest), elsewhere.map(at));
        assert_eq!(standing, expected);
    }
}
