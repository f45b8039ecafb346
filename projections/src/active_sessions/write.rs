//! Writes to entries, shared by the projection and by fills.

use domain::session::{ProgressChange, StartedSession};
use domain::{SessionId, SessionStarted};
use redis::ScriptInvocation;

use super::CachedSession;

/// A write to one reader's entry.
#[derive(Debug)]
pub struct EntryWrite {
    /// The global position of the last event that the write reflects.
    pub(super) version: i64,
    pub(super) change: Change,
}

#[derive(Debug)]
pub(super) enum Change {
    /// Replaces the entry.
    Put(SessionId, i64, Box<SessionStarted>, ProgressChange),
    /// Updates the entry of this session. If there is none, leaves a tombstone,
    /// which also rejects fills that read the log before.
    Update(SessionId, i64, ProgressChange),
    /// The reader has no active session.
    Inactive,
    /// The state is unknown. Leaves a tombstone.
    Invalidate,
}

impl Change {
    fn put(cached: &CachedSession) -> Self {
        let StartedSession { start, progress } = &cached.session;
        Self::Put(
            cached.session_id,
            cached.sequence,
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

impl EntryWrite {
    /// Writes an active session as read from the log. `None` if the reader has
    /// none.
    pub(super) fn new(active: Option<&CachedSession>, version: i64) -> Self {
        Self {
            version,
            change: active.map_or(Change::Inactive, Change::put),
        }
    }

    /// Appends the eight arguments that the scripts expect for each key.
    pub(super) fn push_args(&self, call: &mut ScriptInvocation<'_>) {
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
            Change::Inactive => ("none", String::new(), 0, String::new(), None),
            Change::Invalidate => ("invalidate", String::new(), 0, String::new(), None),
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
