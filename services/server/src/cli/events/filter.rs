//! Which events are wanted. Looks at what any event has, so that one that
//! cannot be decoded is not lost.

use clap::{Args, ValueEnum};
use domain::SessionId;
use eventlog::Stored;
use messaging::subject::short_name;
use serde::Deserialize;
use uuid::Uuid;

/// The events that are wanted; without filters, all.
#[derive(Args, Clone, Debug, Default)]
pub struct Filter {
    /// Only these events; may be given several times.
    #[arg(long = "event", value_enum)]
    events: Vec<Event>,
    /// Only this reader's.
    #[arg(long, value_name = "UUID")]
    reader: Option<Uuid>,
    /// Only this session's.
    #[arg(long, value_name = "UUID")]
    session: Option<SessionId>,
}

/// An event, as subjects and types name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Event {
    Started,
    PositionUpdated,
    Ended,
    Erased,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::PositionUpdated => "position_updated",
            Self::Ended => "ended",
            Self::Erased => "erased",
        }
    }
}

/// What tells whose an event is, of any version.
#[derive(Deserialize)]
struct Owner {
    reader_id: Uuid,
}

impl Filter {
    /// Whether an event is wanted.
    pub fn lets_through(&self, event: &Stored) -> bool {
        let name = short_name(&event.event_type);
        (self.events.is_empty() || self.events.iter().any(|wanted| wanted.name() == name))
            && self
                .session
                .is_none_or(|wanted| event.session_id.parse() == Ok(wanted))
            && self.reader.is_none_or(|wanted| {
                let owner = serde_json::from_str::<Owner>(&event.payload);
                owner.is_ok_and(|owner| owner.reader_id == wanted)
            })
    }
}
