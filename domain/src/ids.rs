//! Identifiers: UUIDs that cannot be taken for one another.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{SessionError, Timestamp};

/// How old a session id made by a client may be: offline reading older than
/// this has no partition to go to any more.
pub const MAX_ID_AGE: TimeDelta = TimeDelta::days(30);

/// How far ahead a client's clock may be.
pub const MAX_CLOCK_LEAD: TimeDelta = TimeDelta::hours(24);

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The UUID itself.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_newtype! {
    /// Who reads.
    ReaderId
}
uuid_newtype! {
    /// What is read.
    BookId
}
uuid_newtype! {
    /// One reading session; a `UUIDv7`, so that its time says which monthly
    /// partition it lives in.
    SessionId
}

impl From<Uuid> for ReaderId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<Uuid> for BookId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl SessionId {
    /// A new id whose time is `at`.
    #[must_use]
    pub fn at(at: Timestamp) -> Self {
        let seconds = u64::try_from(at.timestamp()).unwrap_or(0);
        let time =
            uuid::Timestamp::from_unix(uuid::NoContext, seconds, at.timestamp_subsec_nanos());
        Self(Uuid::new_v7(time))
    }

    /// An id of which only the shape is known: to look a session up, not to
    /// start one.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The time in the id; `None` when it is not a `UUIDv7`.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        if self.0.get_version_num() != 7 {
            return None;
        }
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    }

    /// Accepts an id that a client made, at the time `now`.
    ///
    /// # Errors
    /// [`SessionError::SessionId`] unless it is a `UUIDv7` whose time is within
    /// [`MAX_ID_AGE`] before and [`MAX_CLOCK_LEAD`] after `now`.
    pub fn from_client(uuid: Uuid, now: Timestamp) -> Result<Self, SessionError> {
        let id = Self(uuid);
        match id.time() {
            Some(time) if time >= now - MAX_ID_AGE && time <= now + MAX_CLOCK_LEAD => Ok(id),
            _ => Err(SessionError::SessionId),
        }
    }
}

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn an_id_carries_its_time() {
        let at = chrono::Utc.timestamp_millis_opt(1_790_000_000_123).unwrap();
        assert_eq!(SessionId::at(at).time(), Some(at));
    }

    #[test]
    fn a_clients_id_is_a_recent_uuid_v7() {
        let now = chrono::Utc.timestamp_millis_opt(1_790_000_000_000).unwrap();
        let accepted = |time| SessionId::from_client(SessionId::at(time).uuid(), now).is_ok();
        assert!(accepted(now - MAX_ID_AGE));
        assert!(accepted(now + MAX_CLOCK_LEAD));
        assert!(!accepted(now - MAX_ID_AGE - TimeDelta::milliseconds(1)));
        assert!(!accepted(now + MAX_CLOCK_LEAD + TimeDelta::milliseconds(1)));
        assert!(SessionId::from_client(Uuid::new_v4(), now).is_err());
        assert!(SessionId::from_client(Uuid::max(), now).is_err());
    }
}
