//! Identifiers: a UUID type for each kind of entity, so that the compiler
//! rejects a mix-up.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{SessionError, Timestamp};

/// The maximum age of a client's time, in a session id or a command: the log may
/// have no partition for an older session.
pub const MAX_CLIENT_TIME_AGE: TimeDelta = TimeDelta::days(30);

/// How far a client's time may be ahead of the server's.
pub const MAX_CLIENT_TIME_LEAD: TimeDelta = TimeDelta::hours(24);

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
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
    /// Identifies a reader. The service takes or derives the UUID from the `sub`
    /// claim of the reader's token.
    ReaderId
}
uuid_newtype! {
    /// Identifies a book. The client app assigns the UUID.
    BookId
}
uuid_newtype! {
    /// Identifies a reading session. It is a `UUIDv7`: its time determines the
    /// monthly partition that stores the session.
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
    /// Generates an id with the time `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        let seconds = u64::try_from(at.timestamp()).unwrap_or(0);
        let time =
            uuid::Timestamp::from_unix(uuid::NoContext, seconds, at.timestamp_subsec_nanos());
        Self(Uuid::new_v7(time))
    }

    /// Wraps a UUID without any check: for the lookup of a session, not for the
    /// start of one.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The time in the id; `None` if it is not a `UUIDv7`.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        if self.0.get_version_num() != 7 {
            return None;
        }
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    }

    /// Checks an id that a client generated. `now` is the server's time.
    ///
    /// # Errors
    /// [`SessionError::SessionId`] unless it is a `UUIDv7` with a time from
    /// [`MAX_CLIENT_TIME_AGE`] before to [`MAX_CLIENT_TIME_LEAD`] after `now`.
    pub fn from_client(uuid: Uuid, now: Timestamp) -> Result<Self, SessionError> {
        let id = Self(uuid);
        match id.time() {
            Some(time)
                if (now - MAX_CLIENT_TIME_AGE..=now + MAX_CLIENT_TIME_LEAD).contains(&time) =>
            {
                Ok(id)
            }
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
    fn session_id_contains_its_time() {
        let at = chrono::Utc.timestamp_millis_opt(1_790_000_000_123).unwrap();
        assert_eq!(SessionId::new(at).time(), Some(at));
    }

    #[test]
    fn client_session_id_must_be_a_recent_uuid_v7() {
        let now = chrono::Utc.timestamp_millis_opt(1_790_000_000_000).unwrap();
        let accepted = |time| SessionId::from_client(SessionId::new(time).uuid(), now).is_ok();
        assert!(accepted(now - MAX_CLIENT_TIME_AGE));
        assert!(accepted(now + MAX_CLIENT_TIME_LEAD));
        assert!(!accepted(
            now - MAX_CLIENT_TIME_AGE - TimeDelta::milliseconds(1)
        ));
        assert!(!accepted(
            now + MAX_CLIENT_TIME_LEAD + TimeDelta::milliseconds(1)
        ));
        assert!(SessionId::from_client(Uuid::new_v4(), now).is_err());
        assert!(SessionId::from_client(Uuid::max(), now).is_err());
    }
}
