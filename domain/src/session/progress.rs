//! The progress of a session, and the change that an event makes to it.

use serde::{Deserialize, Serialize};

use crate::event::EndReason;
use crate::{Position, SessionEvent, SessionStarted, Timestamp};

/// The part of a session's state that changes after its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionProgress {
    /// The newest observation, including the end.
    pub latest: Observation,
    /// The furthest position of all observations, including late ones.
    pub furthest_position: Position,
    /// The active reading time so far, in milliseconds.
    pub active_ms: i64,
    /// `None` while the session is active.
    pub ended: Option<Ending>,
}

/// The reader's position at a point in time.
///
/// The order of the fields defines the order of observations: by time, then by
/// position, then by locator. It does not depend on the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Observation {
    pub at: Timestamp,
    pub position: Position,
    /// The exact place in the app's own format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub at: Timestamp,
    pub reason: EndReason,
}

/// The effect of one or more events on a session's progress. It depends on the
/// events alone, because its values are absolute: a projection can apply it
/// without the session's earlier state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressChange {
    /// The newest observation; `None` if the event did not change it.
    pub latest: Option<Observation>,
    pub furthest_position: Position,
    /// The active reading time so far, in milliseconds.
    pub active_ms: i64,
    /// `None` while the session is active.
    pub ended: Option<Ending>,
}

impl SessionProgress {
    pub(super) fn at_start(started: &SessionStarted) -> Self {
        Self {
            latest: Observation {
                at: started.started_at,
                position: started.position,
                locator: started.locator.clone(),
            },
            furthest_position: started.position,
            active_ms: 0,
            ended: None,
        }
    }

    pub(super) fn apply(&mut self, change: ProgressChange) {
        if let Some(latest) = change.latest {
            self.latest = latest;
        }
        self.furthest_position = change.furthest_position;
        self.active_ms = change.active_ms;
        self.ended = change.ended;
    }
}

impl ProgressChange {
    /// Merges a later change into this one.
    pub fn merge(&mut self, later: Self) {
        let latest = later.latest.or_else(|| self.latest.take());
        *self = Self { latest, ..later };
    }
}

impl SessionEvent {
    /// The event's effect on the session's progress; `None` for an erasure.
    #[must_use]
    pub fn progress_change(&self) -> Option<ProgressChange> {
        Some(match self {
            Self::SessionErased(_) => return None,
            Self::SessionStarted(event) => {
                let progress = SessionProgress::at_start(event);
                ProgressChange {
                    latest: Some(progress.latest),
                    furthest_position: progress.furthest_position,
                    active_ms: progress.active_ms,
                    ended: None,
                }
            }
            Self::PositionUpdated(event) => ProgressChange {
                latest: event.applied.then(|| Observation {
                    at: event.occurred_at,
                    position: event.position,
                    locator: event.locator.clone(),
                }),
                furthest_position: event.furthest_position,
                active_ms: event.active_ms,
                ended: None,
            },
            Self::SessionEnded(event) => ProgressChange {
                latest: Some(Observation {
                    at: event.ended_at,
                    position: event.position,
                    locator: event.locator.clone(),
                }),
                furthest_position: event.furthest_position,
                active_ms: event.active_ms,
                ended: Some(Ending {
                    at: event.ended_at,
                    reason: event.reason,
                }),
            },
        })
    }
}
