//! The log of one reader with several sessions, as commands append it. For tests that
//! apply events to a projection themselves.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use domain::command::Occurrence;
use domain::event::EndReason;
use domain::session::{CompleteSession, Rules, StartedSession};
use domain::{
    CorrectSession, EndSession, Position, ReaderId, SessionCommand, SessionErased, SessionEvent,
    SessionId, Standing, StartSession, Timestamp, UpdatePosition,
};
use eventlog::RecordedEvent;
use projections::active_sessions::{CacheLookup, CachedSession};
use uuid::Uuid;

use crate::random_history::Random;

pub struct ReaderLog {
    pub reader_id: ReaderId,
    pub events: Vec<RecordedEvent>,
    /// The number of events after each append.
    pub appends: Vec<usize>,
    /// The reader's active session after each number of events, from 0.
    active: Vec<Option<CachedSession>>,
    sessions: BTreeMap<SessionId, CompleteSession>,
    begun_at: Timestamp,
    seconds: i64,
}

impl Default for ReaderLog {
    fn default() -> Self {
        Self {
            reader_id: Uuid::new_v4().into(),
            events: Vec::new(),
            appends: vec![0],
            active: vec![None],
            sessions: BTreeMap::new(),
            begun_at: eventlog::clock::now(),
            seconds: 0,
        }
    }
}

impl ReaderLog {
    /// The log of a reader that does anything.
    #[must_use]
    pub fn random(random: &mut Random, appends: usize) -> Self {
        let mut log = Self::default();
        let mut ids = Vec::new();
        while log.appends.len() <= appends {
            if ids.is_empty() || random.below(8) == 0 {
                ids.push(log.start(match random.below(3) {
                    0 => Standing::Active,
                    _ => Standing::Superseded,
                }));
                continue;
            }
            let id = ids[usize::try_from(random.below(ids.len() as u64)).unwrap()];
            let is_active = log.active_id() == Some(id);
            let Some(session) = log.session(id) else {
                continue;
            };
            let is_finished = session.is_finished();
            match random.below(10) {
                0..=2 if !is_finished => log.observe(id, Standing::Active),
                3..=4 if !is_finished && !is_active => log.observe(id, Standing::Superseded),
                5 => log.observe_late(id),
                6 if !is_finished => log.end(id),
                7 if is_active => {
                    log.deactivate(EndReason::Idle);
                    log.append();
                }
                8 if !is_active => log.correct(id),
                9 if random.below(3) == 0 => log.erase(id),
                _ => {}
            }
        }
        log
    }

    pub fn start(&mut self, standing: Standing) -> SessionId {
        if standing == Standing::Active {
            self.deactivate(EndReason::Superseded);
        }
        let id = SessionId::new(eventlog::clock::now());
        let start = SessionCommand::Start(StartSession {
            reader_id: self.reader_id,
            book_id: Uuid::new_v4().into(),
            position: Position::START,
            device_type: None,
            device_id: None,
            time_zone: None,
            locator: None,
            book: None,
            occurred: self.now(),
            standing,
        });
        self.decide(id, start);
        self.append();
        id
    }

    /// Adds the session's newest observation. If the session becomes active, it
    /// supersedes the active one.
    pub fn observe(&mut self, id: SessionId, standing: Standing) {
        if standing == Standing::Active && self.active_id() != Some(id) {
            self.deactivate(EndReason::Superseded);
        }
        let occurred = self.now();
        self.update(id, occurred, standing);
        self.append();
    }

    /// Adds an observation that is older than all others. The session is as active as
    /// before.
    pub fn observe_late(&mut self, id: SessionId) {
        let standing = if self.active_id() == Some(id) {
            Standing::Active
        } else {
            Standing::Superseded
        };
        let at = self.now().at();
        let occurred = occurrence(self.begun_at - (at - self.begun_at));
        self.update(id, occurred, standing);
        self.append();
    }

    pub fn end(&mut self, id: SessionId) {
        let end = SessionCommand::End(EndSession {
            position: None,
            locator: None,
            occurred: self.now(),
        });
        self.decide(id, end);
        self.append();
    }

    pub fn correct(&mut self, id: SessionId) {
        let now = self.now().at();
        let correct = SessionCommand::Correct(CorrectSession {
            ended_at: Some(now),
            position: None,
            active: None,
            received: now,
        });
        self.decide(id, correct);
        self.append();
    }

    pub fn erase(&mut self, id: SessionId) {
        let erased_at = self.now().at();
        self.record(
            id,
            SessionEvent::SessionErased(SessionErased {
                reader_id: self.reader_id,
                erased_at,
            }),
        );
        self.append();
    }

    /// The result of a query after a number of events.
    #[must_use]
    pub fn after(&self, events: usize) -> CacheLookup {
        match &self.active[events] {
            Some(cached) => CacheLookup::Active(Box::new(cached.clone())),
            None => CacheLookup::Inactive,
        }
    }

    /// The reader's active session after a number of events, with the global position
    /// of its last event.
    #[must_use]
    pub fn active_after(&self, events: usize) -> Option<(&CachedSession, i64)> {
        let cached = self.active[events].as_ref()?;
        let mut before = self.events[..events].iter().rev();
        let last = before.find(|event| event.session_id == cached.session_id);
        Some((cached, last?.global_position))
    }

    /// The end of the log after a number of events of this reader.
    #[must_use]
    pub fn head_after(&self, events: usize) -> i64 {
        events
            .checked_sub(1)
            .map_or(0, |last| self.events[last].global_position)
    }

    /// Ends the active session, if there is one.
    fn deactivate(&mut self, reason: EndReason) {
        if let Some(id) = self.active_id() {
            self.decide(id, SessionCommand::Deactivate(reason));
        }
    }

    fn update(&mut self, id: SessionId, occurred: Occurrence, standing: Standing) {
        let update = SessionCommand::UpdatePosition(UpdatePosition {
            position: Position::new(f64::from(u8::try_from(self.seconds % 100).unwrap())).unwrap(),
            locator: None,
            occurred,
            standing,
        });
        self.decide(id, update);
    }

    fn active_id(&self) -> Option<SessionId> {
        let last = self.active.last().and_then(Option::as_ref);
        last.map(|cached| cached.session_id)
    }

    fn session(&self, id: SessionId) -> Option<&StartedSession> {
        self.sessions.get(&id)?.session.started()
    }

    /// One second after the previous event.
    fn now(&mut self) -> Occurrence {
        self.seconds += 1;
        occurrence(self.begun_at + TimeDelta::seconds(self.seconds))
    }

    fn decide(&mut self, id: SessionId, command: SessionCommand) {
        let session = self.sessions.entry(id).or_default();
        for event in session.decide(command, Rules::default()).unwrap() {
            self.record(id, event);
        }
    }

    fn record(&mut self, session_id: SessionId, event: SessionEvent) {
        let state = self.sessions.entry(session_id).or_default();
        state.apply(&event);
        let earlier = self.events.iter();
        let earlier = earlier.filter(|event| event.session_id == session_id);
        let sequence = i64::try_from(earlier.count()).unwrap() + 1;
        let before = self.active.last().cloned().flatten();
        let active = match state.session.started() {
            Some(session) if session.is_active() => Some(CachedSession {
                session_id,
                sequence,
                session: session.clone(),
            }),
            _ => before.filter(|before| before.session_id != session_id),
        };
        self.active.push(active);
        // Events of other readers are in between.
        let global_position = 10 * i64::try_from(self.events.len()).unwrap() + 10;
        self.events.push(RecordedEvent {
            global_position,
            session_id,
            sequence,
            event,
        });
    }

    /// Ends an append.
    fn append(&mut self) {
        if self.appends.last() != Some(&self.events.len()) {
            self.appends.push(self.events.len());
        }
    }
}

fn occurrence(at: Timestamp) -> Occurrence {
    Occurrence::new(Some(at), None, at).unwrap()
}
