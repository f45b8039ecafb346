//! The decisions about a session that was started.

use chrono::TimeDelta;

use super::{Ending, Rules, StartedSession};
use crate::clock::{MAX_REQUEST_DURATION, Occurrence};
use crate::error::DecideError;
use crate::event::EndReason;
use crate::intervals::{Interval, Intervals};
use crate::observation::ReaderEnd;
use crate::{
    CorrectSession, EndSession, FirstObservation, Observation, Position, PositionUpdated,
    SessionEnded, SessionError, SessionEvent, Standing, StartSession, Timeline, Timestamp,
    UpdatePosition,
};

impl StartedSession {
    /// A start with the same reader, book and position is a repeat and produces no
    /// event. Any other start with this session's id is refused.
    pub(super) fn repeat_start(
        &self,
        command: &StartSession,
    ) -> Result<Vec<SessionEvent>, DecideError> {
        let same = self.start.reader_id == command.reader_id
            && self.start.book_id == command.book_id
            && self.start.position == command.position;
        if same {
            Ok(Vec::new())
        } else {
            Err(SessionError::AlreadyStarted.into())
        }
    }

    pub(super) fn update_position(
        &self,
        command: UpdatePosition,
        rules: Rules,
        timeline: Option<&Timeline>,
    ) -> Result<Vec<SessionEvent>, DecideError> {
        let latest = &self.progress.latest;
        let is_timed = command.occurred.client.is_some();
        let mut observation = Observation {
            // Without a client's time, the order of arrival decides, even if
            // the servers' clocks disagree.
            at: match command.occurred.client {
                Some(at) => at,
                None => command.occurred.received.max(latest.at),
            },
            device_time: command.occurred.device_time,
            position: command.position,
            locator: command.locator,
        };
        let reader_end = self.progress.ended.filter(|ending| ending.is_final());
        if let Some(end) = reader_end
            && is_same_moment(end.at, &command.occurred, observation.at)
        {
            observation.at = end.at;
        }
        if reader_end.is_some_and(|end| !is_timed || observation.at > end.at) {
            return Err(SessionError::Inactive.into());
        }
        // An end with a position is no observation, although it can equal one.
        if is_timed && reader_end.is_none() && observation.is_repeat_of(latest) {
            return Ok(Vec::new());
        }
        // A repeat of an earlier observation can look newer than the latest one only if
        // the service has shifted it: its own time is then not newer. The times of a
        // clock that was shifted and of one that was not cannot be compared.
        let is_newest = !is_timed
            || (observation.at > latest.at
                && observation.sent_time() > latest.sent_time()
                && (observation.device_time.is_none() || latest.device_time.is_some()));
        let (added, applied) = if reader_end.is_none() && is_newest {
            (self.added_up_to(observation.at, rules), true)
        } else {
            let timeline = timeline.ok_or(DecideError::TimelineNeeded)?;
            if timeline.contains(&observation) {
                return Ok(Vec::new());
            }
            let added = timeline.added_by(observation.at, rules.active_gap);
            // The observation that was sent later counts if two times are equal.
            let applied = observation.at >= latest.at
                && timeline.end().is_none_or(|end| end.position.is_none());
            (added, applied)
        };
        let added = added.filter(|_| !self.progress.active_fixed);
        let ended = reader_end.or_else(|| self.provisional_end(command.standing, observation.at));
        let first = if observation.at < self.first().at {
            let Observation { at, position, .. } = observation;
            Some(FirstObservation { at, position })
        } else {
            self.progress.first
        };
        Ok(vec![SessionEvent::PositionUpdated(PositionUpdated {
            reader_id: self.start.reader_id,
            occurred_at: observation.at,
            device_time: observation.device_time,
            position: observation.position,
            applied,
            active_ms: self.progress.active_ms + added.map_or(0, |interval| interval.ms),
            intervals: added.into_iter().collect(),
            active_fixed: self.progress.active_fixed,
            furthest_position: self.progress.furthest_position.max(observation.position),
            started_at: first.map(|first| first.at),
            start_position: first.map(|first| first.position),
            ended_at: ended.map(|ending| ending.at),
            end_reason: ended.map(|ending| ending.reason),
            time_zone: self.start.time_zone.clone(),
            locator: observation.locator,
        })])
    }

    pub(super) fn end(
        &self,
        command: EndSession,
        rules: Rules,
        timeline: Option<&Timeline>,
    ) -> Result<Vec<SessionEvent>, DecideError> {
        if self.is_finished() {
            return Err(SessionError::AlreadyEnded.into());
        }
        let latest = &self.progress.latest;
        let at = match command.occurred.client {
            // A session never ends before its start.
            Some(at) if is_same_moment(at, &command.occurred, latest.at) => latest.at,
            Some(at) => at.max(self.start.started_at),
            None => command.occurred.received.max(latest.at),
        };
        if at >= self.credited_up_to() {
            let own_position = end_position(command.position, command.locator.clone(), latest);
            let has_position = own_position.is_some();
            let (position, locator) = own_position.unwrap_or_else(|| {
                let locator = command.locator.or_else(|| latest.locator.clone());
                (latest.position, locator)
            });
            let added = self.added_up_to(at, rules);
            return Ok(vec![SessionEvent::SessionEnded(SessionEnded {
                ended_at: at,
                elapsed_ms: (at - self.first().at).num_milliseconds(),
                position,
                position_at: (!has_position).then_some(latest.at),
                device_time: latest.device_time.filter(|_| !has_position),
                locator,
                active_ms: self.progress.active_ms + added.map_or(0, |interval| interval.ms),
                intervals: added.into_iter().collect(),
                furthest_position: self.progress.furthest_position.max(position),
                ..self.summary(EndReason::Finished)
            })]);
        }
        // The session has observations after its end, which no longer count.
        let timeline = timeline.ok_or(DecideError::TimelineNeeded)?;
        let in_place = timeline.with_end(ReaderEnd { at, position: None });
        let position = in_place
            .latest()
            .and_then(|latest| end_position(command.position, command.locator.clone(), &latest));
        let timeline = timeline.with_end(ReaderEnd { at, position });
        let active = timeline.active(rules.active_gap);
        let ended = self.finished_by(&timeline, at, active);
        Ok(vec![SessionEvent::SessionEnded(SessionEnded {
            locator: command.locator.or(ended.locator),
            ..ended
        })])
    }

    pub(super) fn deactivate(&self, reason: EndReason) -> Result<Vec<SessionEvent>, DecideError> {
        if !self.is_active() {
            return Err(SessionError::AlreadyEnded.into());
        }
        Ok(vec![SessionEvent::SessionEnded(self.summary(reason))])
    }

    pub(super) fn correct(
        &self,
        command: CorrectSession,
        rules: Rules,
        timeline: Option<&Timeline>,
    ) -> Result<Vec<SessionEvent>, DecideError> {
        let Some(ending) = self.progress.ended else {
            return Err(SessionError::StillActive.into());
        };
        let at = command.ended_at.unwrap_or(ending.at);
        if at < self.first().at || at > command.received.max(ending.at) {
            return Err(SessionError::CorrectedEnd.into());
        }
        let timeline = timeline.ok_or(DecideError::TimelineNeeded)?;
        let earlier_end = timeline.end();
        let earlier_position = earlier_end.and_then(|end| end.position.clone());
        let position = end_position(command.position, None, &self.progress.latest);
        let end = ReaderEnd {
            at,
            position: position.or(earlier_position),
        };
        let same_end = earlier_end == Some(&end);
        let timeline = timeline.with_end(end);
        let observed = timeline.active(rules.active_gap);
        let bounds = Interval::between(timeline.first().map_or(at, |first| first.at), at);
        let bound_ms = bounds.map_or(0, |bounds| bounds.ms);
        let fixed_ms = match command.active {
            Some(active) if active.num_milliseconds() > bound_ms => {
                return Err(SessionError::CorrectedActiveTime.into());
            }
            Some(active) => Some(active.num_milliseconds()),
            None if self.progress.active_fixed => Some(self.progress.active_ms.min(bound_ms)),
            None => None,
        };
        let active = match fixed_ms {
            Some(ms) => observed.resized(ms, bounds),
            None => observed,
        };
        let corrected = SessionEnded {
            corrected: true,
            active_fixed: fixed_ms.is_some(),
            ..self.finished_by(&timeline, at, active)
        };
        let unchanged = same_end
            && self.progress.active_ms == corrected.active_ms
            && self.progress.active_fixed == corrected.active_fixed;
        Ok(if unchanged {
            Vec::new()
        } else {
            vec![SessionEvent::SessionEnded(corrected)]
        })
    }

    /// The time up to which the intervals of the events reach: of the latest observation
    /// or, if an end of version 2 credited the time after it, of that end.
    fn credited_up_to(&self) -> Timestamp {
        let latest = self.progress.latest.at;
        let ended = self.progress.ended;
        ended.map_or(latest, |ending| ending.at.max(latest))
    }

    /// The end of the session after an observation at `at`, unless the reader has ended it;
    /// `None` if the session is active then. An idle session with a late observation stays
    /// idle.
    fn provisional_end(&self, standing: Standing, at: Timestamp) -> Option<Ending> {
        let reason = standing.end_reason()?;
        let reason = match self.progress.ended {
            Some(ending) if at < self.progress.latest.at => ending.reason,
            _ => reason,
        };
        Some(Ending {
            at: self.credited_up_to().max(at),
            reason,
        })
    }

    /// The active time that an observation or an end at `at` adds, which is later than all
    /// observations.
    fn added_up_to(&self, at: Timestamp, rules: Rules) -> Option<Interval> {
        let to = at.min(self.progress.latest.at + rules.active_gap);
        Interval::between(self.credited_up_to(), to)
    }

    /// The end that a timeline with an end determines, with all intervals.
    fn finished_by(&self, timeline: &Timeline, at: Timestamp, active: Intervals) -> SessionEnded {
        let known = &self.progress.latest;
        let latest = timeline
            .latest()
            // The same place can have the locator of an end.
            .filter(|latest| (latest.at, latest.position) != (known.at, known.position))
            .unwrap_or_else(|| known.clone());
        let has_position = timeline.end().is_some_and(|end| end.position.is_some());
        let first = timeline.first().unwrap_or(self.first());
        SessionEnded {
            started_at: first.at,
            start_position: first.position,
            ended_at: at,
            elapsed_ms: (at - first.at).num_milliseconds(),
            position: latest.position,
            position_at: (!has_position).then_some(latest.at),
            device_time: latest.device_time,
            locator: latest.locator,
            active_ms: active.total_ms(),
            intervals: active.into_vec(),
            intervals_complete: true,
            furthest_position: timeline
                .furthest()
                .unwrap_or(self.progress.furthest_position),
            ..self.summary(EndReason::Finished)
        }
    }

    /// The end at the latest observation, which adds nothing.
    fn summary(&self, reason: EndReason) -> SessionEnded {
        let (first, latest) = (self.first(), &self.progress.latest);
        SessionEnded {
            reader_id: self.start.reader_id,
            book_id: self.start.book_id,
            reason,
            started_at: first.at,
            ended_at: latest.at,
            elapsed_ms: (latest.at - first.at).num_milliseconds(),
            start_position: first.position,
            position: latest.position,
            position_at: None,
            device_time: latest.device_time,
            locator: latest.locator.clone(),
            intervals: Vec::new(),
            intervals_complete: false,
            corrected: false,
            active_ms: self.progress.active_ms,
            active_fixed: self.progress.active_fixed,
            furthest_position: self.progress.furthest_position,
            time_zone: self.start.time_zone.clone(),
        }
    }
}

/// Whether the end of a session and a later observation are of the same moment. The
/// service places the times of a wrong clock by the arrival of each request, which takes
/// up to [`MAX_REQUEST_DURATION`].
fn is_same_moment(end: Timestamp, occurred: &Occurrence, observed: Timestamp) -> bool {
    let later = TimeDelta::zero()..=MAX_REQUEST_DURATION;
    occurred.device_time.is_some() && later.contains(&(observed - end))
}

/// The position of an end, and its locator: without one, that of `latest`, the latest
/// observation before the end, if it has the same position. `None` if the end has no
/// position: observations determine it, also those that arrive later.
fn end_position(
    position: Option<Position>,
    locator: Option<String>,
    latest: &Observation,
) -> Option<(Position, Option<String>)> {
    let position = position?;
    let of_latest = || {
        let latest = (latest.position == position).then_some(latest);
        latest.and_then(|latest| latest.locator.clone())
    };
    Some((position, locator.or_else(of_latest)))
}
