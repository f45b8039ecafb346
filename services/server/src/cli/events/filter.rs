//! Selects events. Reads only fields that every event has, so that an event that
//! cannot be decoded is not lost.

use clap::Args;
use domain::SessionId;
use eventlog::StoredEvent;
use messaging::subject::short_name;
use uuid::Uuid;

use super::super::names::{one_of, uuid};

/// Without conditions it matches all events.
#[derive(Args, Clone, Debug, Default)]
pub struct Filter {
    /// Print only events of this type, repeatable.
    #[arg(long = "event", value_name = "EVENT", value_parser = one_of(EventName::ALL, EventName::as_str))]
    events: Vec<EventName>,
    /// Print only events of this reader.
    #[arg(long, value_name = "UUID", value_parser = uuid::<Uuid>)]
    reader: Option<Uuid>,
    /// Print only events of this session.
    #[arg(long, value_name = "UUID", value_parser = uuid::<SessionId>)]
    session: Option<SessionId>,
}

/// The short name of an event, as in subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventName {
    Started,
    PositionUpdated,
    Ended,
    Erased,
}

impl EventName {
    const ALL: [Self; 4] = [
        Self::Started,
        Self::PositionUpdated,
        Self::Ended,
        Self::Erased,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::PositionUpdated => "position_updated",
            Self::Ended => "ended",
            Self::Erased => "erased",
        }
    }
}

impl Filter {
    pub fn matches(&self, event: &StoredEvent) -> bool {
        let name = short_name(&event.event_type);
        (self.events.is_empty() || self.events.iter().any(|wanted| wanted.as_str() == name))
            && self
                .session
                .is_none_or(|wanted| event.session_id.parse() == Ok(wanted))
            && self
                .reader
                .is_none_or(|wanted| event.reader_id() == Some(wanted.into()))
    }
}
