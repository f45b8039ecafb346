//! Writes to entries, shared by the projection and by fills.
//!
//! A write of the projection combines all events of a reader in a batch. It does not
//! depend on the entry that Redis holds, which the projection does not know.

use domain::event::EndReason;
use domain::session::{ProgressChange, StartedSession};
use domain::{SessionEvent, SessionId, SessionStarted};
use eventlog::RecordedEvent;
use redis::ScriptInvocation;

use super::{CachedSession, format};

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
    /// This session is not active. Another session's entry stays as it is.
    End(SessionId, NextActive),
    /// The reader has no active session.
    Inactive,
    /// The state is unknown. Leaves a tombstone.
    Invalidate,
}

/// The reader's active session after the previous one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NextActive {
    None,
    /// An event of another session follows, which makes that session active.
    Other,
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
                first: progress.first,
                furthest_position: progress.furthest_position,
                active_ms: progress.active_ms,
                active_fixed: progress.active_fixed,
                ended: None,
            },
        )
    }

    /// The change after an event that leaves session `id` active.
    fn update(
        before: Option<Self>,
        id: SessionId,
        sequence: i64,
        progress: ProgressChange,
    ) -> Self {
        match before {
            Some(Self::Put(session_id, _, start, mut merged)) if session_id == id => {
                merged.merge(progress);
                Self::Put(id, sequence, start, merged)
            }
            Some(Self::Update(session_id, _, mut merged)) if session_id == id => {
                merged.merge(progress);
                Self::Update(id, sequence, merged)
            }
            None => Self::Update(id, sequence, progress),
            // An entry of session `id` has stayed as it was.
            Some(Self::End(other, _)) if other != id => Self::Update(id, sequence, progress),
            // The entry is not one of session `id`, so the start is missing.
            Some(_) => Self::Invalidate,
        }
    }

    /// The change after an event that leaves session `id` not active. `None` if the
    /// event has no effect.
    fn end(before: Option<&Self>, id: SessionId, next: NextActive) -> Option<Self> {
        Some(match before {
            None => Self::End(id, next),
            Some(Self::Put(active, ..) | Self::Update(active, ..)) if *active != id => return None,
            // A reader has at most one active session, which ends here.
            Some(Self::Put(..) | Self::Update(..)) if next == NextActive::None => Self::Inactive,
            Some(Self::Inactive) => Self::Inactive,
            Some(Self::End(session_id, before)) if *session_id == id => {
                Self::End(id, next.max(*before))
            }
            // Also the end of two sessions, one of which may be the active one.
            Some(_) => Self::Invalidate,
        })
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

    /// Leaves a tombstone.
    pub(super) fn invalidate(version: i64) -> Self {
        Self {
            version,
            change: Change::Invalidate,
        }
    }

    /// The write after one more event of the reader. `None` if there is nothing to
    /// write.
    pub(super) fn with_event(before: Option<Self>, recorded: &RecordedEvent) -> Option<Self> {
        let (id, sequence) = (recorded.session_id, recorded.sequence);
        let progress = recorded.event.progress_change();
        let ending = progress.as_ref().and_then(|progress| progress.ended);
        let active = progress.filter(|progress| progress.ended.is_none());
        let change = match (&recorded.event, active) {
            (SessionEvent::SessionStarted(start), Some(progress)) => {
                Change::Put(id, sequence, Box::new(start.clone()), progress)
            }
            // The session has never been active.
            (SessionEvent::SessionStarted(_), None) => return before,
            (_, Some(progress)) => {
                Change::update(before.map(|before| before.change), id, sequence, progress)
            }
            (_, None) => {
                // An erasure has no progress.
                let next = match ending.map(|ending| ending.reason) {
                    Some(EndReason::Superseded) => NextActive::Other,
                    Some(EndReason::Finished | EndReason::Idle) | None => NextActive::None,
                };
                let change = before.as_ref().map(|before| &before.change);
                match Change::end(change, id, next) {
                    Some(change) => change,
                    None => return before,
                }
            }
        };
        Some(Self {
            version: recorded.global_position,
            change,
        })
    }

    /// Appends the two arguments that the scripts expect for each key: the kind of the
    /// write and its text.
    pub(super) fn push_args(&self, call: &mut ScriptInvocation<'_>) {
        let version = self.version;
        let (kind, text) = match &self.change {
            Change::Put(id, sequence, start, progress) => {
                let text = format::entry(version, *id, *sequence, progress, start);
                ("put", text)
            }
            Change::Update(id, sequence, progress) => {
                match format::update(version, *id, *sequence, progress) {
                    Some(text) => ("update", text),
                    None => ("merge", format::merge(version, *id, *sequence, progress)),
                }
            }
            Change::End(id, NextActive::None) => ("end", format::version_and_id(version, *id)),
            Change::End(id, NextActive::Other) => {
                ("supersede", format::version_and_id(version, *id))
            }
            Change::Inactive => ("none", format::inactive(version)),
            Change::Invalidate => ("invalidate", format::tombstone(version)),
        };
        call.arg(kind).arg(text);
    }
}
