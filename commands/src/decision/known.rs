//! The loaded state of a reader, and the parts of it that a decision misses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::{SessionError, SessionId, Timeline, ZoneName};
use eventlog::active_claims::ReaderActivity;

use crate::repository::VersionedSession;

/// The loaded state of a reader, from which a command is decided.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Sessions as of some moment. An append detects if one is outdated.
    pub(crate) sessions: BTreeMap<SessionId, Arc<VersionedSession>>,
    /// The sessions that contain all events in the log.
    pub(crate) newest: BTreeSet<SessionId>,
    pub(crate) timelines: BTreeMap<SessionId, Timeline>,
    pub(crate) activity: Option<ReaderActivity>,
    /// The time zone of the reader's last session; UTC if there is none.
    pub(crate) last_zone: Option<ZoneName>,
}

/// A part of the reader's state that a decision needs and [`Known`] does not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Session(SessionId),
    /// All events of a session: a refusal appends nothing, so nothing else would detect
    /// that the session is outdated.
    NewestSession(SessionId),
    Timeline(SessionId),
    Activity,
    LastZone,
}

/// A command was not decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undecided {
    Missing(Missing),
    /// Parts of the loaded state contradict each other: the log has changed in between.
    Outdated,
    Refused(SessionError),
}

impl From<Missing> for Undecided {
    fn from(missing: Missing) -> Self {
        Self::Missing(missing)
    }
}

impl From<SessionError> for Undecided {
    fn from(refusal: SessionError) -> Self {
        Self::Refused(refusal)
    }
}
