//! The requests of the scenario, as the original's apps send them.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::figures::Call;

/// A request of the scenario. Positions are percent of the book.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    Start {
        book: Uuid,
    },
    Update {
        session: Uuid,
        position: u32,
    },
    End {
        session: Uuid,
        position: u32,
    },
    /// The first page of the history.
    History,
    /// The active session.
    Active,
}

impl Request {
    pub const fn call(self) -> Call {
        match self {
            Self::Start { .. } => Call::Start,
            Self::Update { .. } => Call::Update,
            Self::End { .. } => Call::End,
            Self::History => Call::History,
            Self::Active => Call::Active,
        }
    }

    /// The session that the request changes.
    pub const fn session(self) -> Option<Uuid> {
        match self {
            Self::Update { session, .. } | Self::End { session, .. } => Some(session),
            Self::Start { .. } | Self::History | Self::Active => None,
        }
    }

    /// Method, path below the prefix, and body.
    pub fn parts(self) -> (Method, String, Option<Value>) {
        match self {
            Self::Start { book } => {
                let body = json!({ "book_id": book, "device_type": "mobile" });
                (Method::POST, "/start".to_owned(), Some(body))
            }
            Self::Update { session, position } => {
                let body = json!({ "current_position": position });
                (Method::PUT, format!("/{session}/update"), Some(body))
            }
            Self::End { session, position } => {
                let body = json!({ "end_position": position });
                (Method::PUT, format!("/{session}/end"), Some(body))
            }
            Self::History => (Method::GET, "/history".to_owned(), None),
            Self::Active => (Method::GET, "/active".to_owned(), None),
        }
    }
}
