//! What is written to an entry, by the projection and by fills alike.

use domain::session::{ProgressChange, StartedSession};
use domain::{SessionId, SessionStarted};
use redis::ScriptInvocation;

use super::Entry;

/// What is done to a reader's entry, and the global position that it is of.
#[derive(Debug)]
pub struct Write {
    pub(super) version: i64,
    pub(super) change: Change,
}

#[derive(Debug)]
pub(super) enum Change {
    /// A session was started: the whole entry is known.
    Put(SessionId, i64, Box<SessionStarted>, ProgressChange),
    /// An entry that is there moves on; one that is not stays away, and so
    /// does what a query read before.
    Update(SessionId, i64, ProgressChange),
    /// The reader has no active session.
    None,
    /// Nothing is known any more.
    Forget,
}

impl Change {
    /// The whole of an entry.
    fn of(entry: &Entry) -> Self {
        let StartedSession { start, progress } = &entry.session;
        Self::Put(
            entry.session_id,
            entry.sequence,
            Box::new(start.clone()),
            ProgressChange {
                latest: Some(progress.latest.clone()),
                furthest_position: progress.furthest_position,
                active_ms: progress.active_ms,
                ended: None,
            },
        )
    }
}

impl Write {
    /// The whole of an entry, or that there is none, as the log had it.
    pub(super) fn whole(entry: Option<&Entry>, version: i64) -> Self {
        Self {
            version,
            change: entry.map_or(Change::None, Change::of),
        }
    }

    /// What the scripts take for one key.
    pub(super) fn args(&self, call: &mut ScriptInvocation<'_>) {
        let (kind, id, sequence, start, progress) = match &self.change {
            Change::Put(id, sequence, start, progress) => (
                "put",
                id.to_string(),
                *sequence,
                serde_json::to_string(start).expect("events are plain JSON"),
                Some(progress),
            ),
            Change::Update(id, sequence, progress) => (
                "update",
                id.to_string(),
                *sequence,
                String::new(),
                Some(progress),
            ),
            Change::None => ("none", String::new(), 0, String::new(), None),
            Change::Forget => ("forget", String::new(), 0, String::new(), None),
        };
        let latest = progress
            .and_then(|progress| progress.latest.as_ref())
            .map(|latest| serde_json::to_string(latest).expect("an observation is plain JSON"))
            .unwrap_or_default();
        call.arg(kind)
            .arg(self.version)
            .arg(id)
            .arg(sequence)
            .arg(start)
            .arg(latest);
        call.arg(progress.map_or(0, |progress| progress.furthest_position.steps()));
        call.arg(progress.map_or(0, |progress| progress.active_ms));
    }
}
