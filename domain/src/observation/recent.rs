//! The times of a session's latest observations. They decide an observation that arrives a
//! little late, without the timeline: the active time that it adds lies between its
//! neighbours.

use super::{Observation, Timeline};
use crate::event::EndReason;
use crate::{Position, SessionCommand, SessionEvent, Timestamp};

/// The most times that are kept: a minute at one observation per second.
const MAX_TIMES: usize = 64;

/// The latest observation times of a session that its reader has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentTimes {
    /// Ascending. All observations of the session after the first of these times are here.
    times: Vec<Timestamp>,
}

impl RecentTimes {
    /// `None` if the times alone do not decide: the reader has ended the session, or the
    /// service has shifted a time of the client. A repeat of a shifted observation can have
    /// any time.
    #[must_use]
    pub fn new(timeline: &Timeline) -> Option<Self> {
        let all = &timeline.observations;
        let is_shifted = all.iter().any(|other| other.device_time.is_some());
        let latest = &all[all.len().saturating_sub(MAX_TIMES)..];
        (timeline.end.is_none() && !is_shifted).then(|| Self {
            times: latest.iter().map(|observation| observation.at).collect(),
        })
    }

    /// The times after one more event of the session; `None` as for [`Self::new`].
    #[must_use]
    pub fn after(mut self, event: &SessionEvent) -> Option<Self> {
        match event {
            SessionEvent::PositionUpdated(event) if event.device_time.is_none() => {
                self.insert(event.occurred_at);
                Some(self)
            }
            SessionEvent::SessionEnded(event) if event.reason != EndReason::Finished => Some(self),
            _ => None,
        }
    }

    fn insert(&mut self, at: Timestamp) {
        let mut index = self.times.partition_point(|other| *other <= at);
        // An observation before all known ones has unknown neighbours.
        if index == 0 {
            return;
        }
        if self.times.len() == MAX_TIMES {
            self.times.remove(0);
            index -= 1;
        }
        self.times.insert(index, at);
    }

    /// A timeline of the two neighbours of the command's observation: it decides the command
    /// like the whole timeline. `None` if a neighbour is unknown, or the observation can be a
    /// repeat. The positions of the neighbours are not those of the session.
    #[must_use]
    pub fn neighbours(&self, command: &SessionCommand) -> Option<Timeline> {
        let SessionCommand::UpdatePosition(update) = command else {
            return None;
        };
        let at = update.occurred.client?;
        if update.occurred.device_time.is_some() {
            return None;
        }
        let after = self.times.partition_point(|other| *other <= at);
        let before = *self.times.get(after.checked_sub(1)?)?;
        let next = *self.times.get(after)?;
        let neighbour = |at| Observation {
            at,
            device_time: None,
            position: Position::default(),
            locator: None,
        };
        (before < at).then(|| Timeline {
            observations: vec![neighbour(before), neighbour(next)],
            end: None,
        })
    }

    /// The size in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self.times.as_slice())
    }
}
