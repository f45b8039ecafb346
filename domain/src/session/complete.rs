//! The aggregate as cqrs-es runs it: a session with its timeline. cqrs-es loads all
//! events of a session, so it can always decide.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};

use super::{ReadingSession, Rules};
use crate::error::DecideError;
use crate::{SessionCommand, SessionError, SessionEvent, Timeline};

/// A session that was folded from all of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteSession {
    pub session: ReadingSession,
    pub timeline: Timeline,
}

impl CompleteSession {
    /// Returns the events that a command produces, or the reason for its refusal.
    pub fn decide(
        &self,
        command: SessionCommand,
        rules: Rules,
    ) -> Result<Vec<SessionEvent>, SessionError> {
        let decided = self.session.decide(command, rules, Some(&self.timeline));
        decided.map_err(|error| match error {
            DecideError::Refused(refusal) => refusal,
            DecideError::TimelineNeeded => unreachable!("the timeline is given"),
        })
    }

    /// Updates the state by one event.
    pub fn apply(&mut self, event: &SessionEvent) {
        self.session.apply(event);
        self.timeline.apply(event);
    }
}

/// The services are the [`Rules`], so that `handle` returns the same events as
/// [`CompleteSession::decide`].
///
/// Use it with cqrs-es's plain event store only. In cqrs-es 0.5.0,
/// `EventSink::write` applies each event to the aggregate, and the snapshot and
/// aggregate stores apply it again on commit.
impl Aggregate for CompleteSession {
    const TYPE: &'static str = "reading_session";
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Error = SessionError;
    type Services = Rules;

    async fn handle(
        &mut self,
        command: SessionCommand,
        rules: &Rules,
        sink: &EventSink<Self>,
    ) -> Result<(), SessionError> {
        for event in self.decide(command, *rules)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        Self::apply(self, &event);
    }
}
