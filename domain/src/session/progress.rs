//! The progress of a session, and the change that an event makes to it.

use serde::{Deserialize, Serialize};

use crate::event::EndReason;
use crate::{FirstObservation, Observation, Position, SessionEvent, SessionStarted, Timestamp};

/// The part of a session's state that changes after its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionProgress {
    /// The latest position, and the time at which it was observed.
    pub latest: Observation,
    /// `None` if the first observation is the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<FirstObservation>,
    /// The furthest position of all observations, including late ones.
    pub furthest_position: Position,
    /// The active reading time so far, in milliseconds.
    pub active_ms: i64,
    /// Whether a correction has set the active time. Observations then add none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub active_fixed: bool,
    /// `None` while the session is active.
    pub ended: Option<Ending>,
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub at: Timestamp,
    pub reason: EndReason,
}

impl Ending {
    /// Whether the reader ended the session. Every other end is provisional: it is the
    /// time of the latest observation, and a later one can undo it.
    #[must_use]
    pub fn is_final(self) -> bool {
        self.reason == EndReason::Finished
    }
}

/// The effect of one or more events on a session's progress. It depends on the
/// events alone, because its values are absolute: a projection can apply it
/// without the session's earlier state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressChange {
    /// The latest observation; `None` if the event did not change it.
    pub latest: Option<Observation>,
    /// `None` if the first observation is the start.
    pub first: Option<FirstObservation>,
    pub furthest_position: Position,
    /// The active reading time so far, in milliseconds.
    pub active_ms: i64,
    pub active_fixed: bool,
    /// `None` while the session is active.
    pub ended: Option<Ending>,
}

impl SessionProgress {
    pub(super) fn at_start(started: &SessionStarted) -> Self {
        Self {
            latest: Observation {
                at: started.started_at,
                device_time: started.device_time,
                position: started.position,
                locator: started.locator.clone(),
            },
            first: None,
            furthest_position: started.position,
            active_ms: 0,
            active_fixed: false,
            ended: started.end_reason.map(|reason| Ending {
                at: started.started_at,
                reason,
            }),
        }
    }

    pub(super) fn apply(&mut self, change: ProgressChange) {
        if let Some(latest) = change.latest {
            self.latest = latest;
        }
        self.first = change.first;
        self.furthest_position = change.furthest_position;
        self.active_ms = change.active_ms;
        self.active_fixed = change.active_fixed;
        self.ended = change.ended;
    }

    /// The time of the latest observation, or of the reader's end.
    #[must_use]
    pub fn last_activity_at(&self) -> Timestamp {
        match self.ended {
            Some(ending) if ending.is_final() => ending.at,
            _ => self.latest.at,
        }
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
                    first: progress.first,
                    furthest_position: progress.furthest_position,
                    active_ms: progress.active_ms,
                    active_fixed: progress.active_fixed,
                    ended: progress.ended,
                }
            }
            Self::PositionUpdated(event) => ProgressChange {
                latest: event.applied.then(|| Observation {
                    at: event.occurred_at,
                    device_time: event.device_time,
                    position: event.position,
                    locator: event.locator.clone(),
                }),
                first: event
                    .started_at
                    .zip(event.start_position)
                    .map(|(at, position)| FirstObservation { at, position }),
                furthest_position: event.furthest_position,
                active_ms: event.active_ms,
                active_fixed: event.active_fixed,
                ended: event
                    .ended_at
                    .zip(event.end_reason)
                    .map(|(at, reason)| Ending { at, reason }),
            },
            Self::SessionEnded(event) => ProgressChange {
                latest: Some(Observation {
                    at: event.position_at.unwrap_or(event.ended_at),
                    device_time: event.device_time,
                    position: event.position,
                    locator: event.locator.clone(),
                }),
                first: Some(FirstObservation {
                    at: event.started_at,
                    position: event.start_position,
                }),
                furthest_position: event.furthest_position,
                active_ms: event.active_ms,
                active_fixed: event.active_fixed,
                ended: Some(Ending {
                    at: event.ended_at,
                    reason: event.reason,
                }),
            },
        })
    }
}
