//! Observations, and the timeline of all observations of a session.

mod recent;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::event::EndReason;
use crate::intervals::{Interval, Intervals};
use crate::{Position, SessionEvent, Timestamp};

pub use recent::RecentTimes;

/// The reader's position at a point in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub at: Timestamp,
    /// The time as the client sent it; `None` if it is `at`. It identifies the
    /// observation when the client sends it again and the service shifts it by
    /// another amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_time: Option<Timestamp>,
    pub position: Position,
    /// The exact place in the app's own format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locator: Option<String>,
}

impl Observation {
    /// The time as the client sent it.
    #[must_use]
    pub fn sent_time(&self) -> Timestamp {
        self.device_time.unwrap_or(self.at)
    }

    /// Whether both are the same observation, sent twice.
    #[must_use]
    pub fn is_repeat_of(&self, other: &Self) -> bool {
        other.was_sent_as(self.sent_time(), self.position, self.locator.as_deref())
    }

    /// Whether a client sent it with this time, position and locator.
    pub(crate) fn was_sent_as(
        &self,
        sent_time: Timestamp,
        position: Position,
        locator: Option<&str>,
    ) -> bool {
        self.sent_time() == sent_time
            && self.position == position
            && self.locator.as_deref() == locator
    }
}

/// The first observation of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstObservation {
    pub at: Timestamp,
    pub position: Position,
}

/// The reader's own end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderEnd {
    pub at: Timestamp,
    /// The position and the locator that the reader ended at. `None` if the end has no
    /// position of its own; the latest observation then determines it.
    pub position: Option<(Position, Option<String>)>,
}

/// All observations of one session, and its end by the reader. Decisions about late
/// observations, early ends and corrections need it; everyday updates do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// By time. Observations of equal times are in the order in which they were sent.
    observations: Vec<Observation>,
    end: Option<ReaderEnd>,
}

impl Timeline {
    /// The timeline after all `events`, in the order of the log.
    #[must_use]
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a SessionEvent>) -> Self {
        let mut timeline = Self::default();
        for event in events {
            timeline.apply(event);
        }
        timeline
    }

    /// Adds the observation or the end of an event.
    pub fn apply(&mut self, event: &SessionEvent) {
        self.apply_with(event, Self::insert);
    }

    fn apply_with(&mut self, event: &SessionEvent, insert: impl FnOnce(&mut Self, Observation)) {
        match event {
            SessionEvent::SessionStarted(event) => insert(
                self,
                Observation {
                    at: event.started_at,
                    device_time: event.device_time,
                    position: event.position,
                    locator: event.locator.clone(),
                },
            ),
            SessionEvent::PositionUpdated(event) => insert(
                self,
                Observation {
                    at: event.occurred_at,
                    device_time: event.device_time,
                    position: event.position,
                    locator: event.locator.clone(),
                },
            ),
            SessionEvent::SessionEnded(event) if event.reason == EndReason::Finished => {
                self.end = Some(ReaderEnd {
                    at: event.ended_at,
                    position: event
                        .position_at
                        .is_none()
                        .then(|| (event.position, event.locator.clone())),
                });
            }
            // The service's own end is no fact about the reader.
            SessionEvent::SessionEnded(_) => {}
            SessionEvent::SessionErased(_) => *self = Self::default(),
        }
    }

    fn insert(&mut self, observation: Observation) {
        let after = self
            .observations
            .partition_point(|other| other.at <= observation.at);
        self.observations.insert(after, observation);
    }

    /// Whether the session has this observation already.
    #[must_use]
    pub fn contains(&self, observation: &Observation) -> bool {
        let mut all = self.observations.iter();
        all.any(|other| other.is_repeat_of(observation))
    }

    /// The reader's end; `None` if the reader has not ended the session.
    #[must_use]
    pub fn end(&self) -> Option<&ReaderEnd> {
        self.end.as_ref()
    }

    /// The timeline with another end.
    #[must_use]
    pub fn with_end(&self, end: ReaderEnd) -> Self {
        Self {
            observations: self.observations.clone(),
            end: Some(end),
        }
    }

    /// The observations that count: those up to the reader's end.
    fn counted(&self) -> &[Observation] {
        let count = match &self.end {
            Some(end) => self
                .observations
                .partition_point(|other| other.at <= end.at),
            None => self.observations.len(),
        };
        &self.observations[..count]
    }

    /// The times that determine the active time: of all counted observations and of
    /// the end.
    fn times(&self) -> impl Iterator<Item = Timestamp> + '_ {
        let observed = self.counted().iter().map(|observation| observation.at);
        observed.chain(self.end.as_ref().map(|end| end.at))
    }

    /// The first observation that counts; `None` without one.
    #[must_use]
    pub fn first(&self) -> Option<FirstObservation> {
        self.counted().first().map(|first| FirstObservation {
            at: first.at,
            position: first.position,
        })
    }

    /// The latest position, as an observation; `None` without one.
    #[must_use]
    pub fn latest(&self) -> Option<Observation> {
        if let Some(ReaderEnd {
            at,
            position: Some((position, locator)),
        }) = &self.end
        {
            return Some(Observation {
                at: *at,
                device_time: None,
                position: *position,
                locator: locator.clone(),
            });
        }
        self.counted().last().cloned()
    }

    /// The furthest position; `None` without an observation.
    #[must_use]
    pub fn furthest(&self) -> Option<Position> {
        let observed = self
            .counted()
            .iter()
            .map(|observation| observation.position);
        let end = self.end.as_ref().and_then(|end| end.position.as_ref());
        observed.chain(end.map(|(position, _)| *position)).max()
    }

    /// The active time: the union of the `active_gap` after each observation, between
    /// the first one and the last.
    #[must_use]
    pub fn active(&self, active_gap: TimeDelta) -> Intervals {
        let times: Vec<Timestamp> = self.times().collect();
        let pairs = times.iter().zip(times.iter().skip(1));
        Intervals::union(
            pairs.filter_map(|(at, next)| Interval::between(*at, (*at + active_gap).min(*next))),
        )
    }

    /// The active time that an observation at `at` adds. `None` if it adds nothing.
    ///
    /// It lies between the neighbours of `at`, so it is one interval.
    #[must_use]
    pub fn added_by(&self, at: Timestamp, active_gap: TimeDelta) -> Option<Interval> {
        let times: Vec<Timestamp> = self.times().collect();
        let after = times.partition_point(|other| *other <= at);
        let before = after.checked_sub(1).map(|index| times[index]);
        match (before, times.get(after)) {
            (Some(before), _) if before == at => None,
            (None, None) => None,
            (Some(before), None) => Interval::between(before, at.min(before + active_gap)),
            (None, Some(next)) => Interval::between(at, (at + active_gap).min(*next)),
            (Some(before), Some(next)) => Interval::between(
                at.max(before + active_gap).min(*next),
                (at + active_gap).min(*next),
            ),
        }
    }
}

/// Builds the timeline of a long session from its events, in the order of the log. Takes
/// time for one sort, where inserting each observation in its place takes quadratic time.
#[derive(Debug, Default)]
pub struct TimelineBuilder {
    timeline: Timeline,
    locator_bytes: usize,
}

impl TimelineBuilder {
    /// The bytes of locators that a timeline contains. Observations beyond this have none:
    /// a session may have thousands of locators of 8 KB. A repeat of such an observation
    /// is recorded again, and an earlier end at it has no locator.
    pub const MAX_LOCATOR_BYTES: usize = 4 << 20;

    /// Adds the observation or the end of an event.
    pub fn apply(&mut self, event: &SessionEvent) {
        let bytes = &mut self.locator_bytes;
        self.timeline
            .apply_with(event, |timeline, mut observation| {
                *bytes += observation.locator.as_ref().map_or(0, String::len);
                if *bytes > Self::MAX_LOCATOR_BYTES {
                    observation.locator = None;
                }
                timeline.observations.push(observation);
            });
    }

    /// The timeline after all events.
    #[must_use]
    pub fn build(mut self) -> Timeline {
        // Stable, so observations of equal times stay in the order in which they were sent.
        self.timeline
            .observations
            .sort_by_key(|observation| observation.at);
        self.timeline
    }
}
