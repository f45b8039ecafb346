//! Conversions of errors from other crates.

use commands::CommandError;
use domain::SessionError;
use eventlog::LogError;
use eventlog::sqlstate::SqlState;
use projections::dead_letters::ActionError;

use super::{Problem, ProblemCode};

impl From<SessionError> for Problem {
    fn from(refusal: SessionError) -> Self {
        let detail = refusal.to_string();
        match refusal {
            SessionError::NotFound => Self::new(ProblemCode::SessionNotFound, detail),
            SessionError::AlreadyStarted => Self::new(ProblemCode::SessionIdInUse, detail),
            SessionError::Inactive => Self::new(ProblemCode::SessionInactive, detail),
            SessionError::AlreadyEnded => Self::new(ProblemCode::SessionAlreadyEnded, detail),
            SessionError::Position => Self::invalid("position", detail),
            SessionError::SessionId => Self::invalid("session_id", detail),
            SessionError::OccurredAt => Self::invalid("occurred_at", detail),
            SessionError::StillActive => Self::new(ProblemCode::SessionActive, detail),
            SessionError::CorrectedEnd => Self::invalid("ended_at", detail),
            SessionError::CorrectedActiveTime => Self::invalid("active_seconds", detail),
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::Conflict => Self::new(
                ProblemCode::Conflict,
                "Other commands changed the session at the same time; retry",
            ),
            CommandError::Repeated => Self::key_in_use(),
            CommandError::Overloaded => Self::overloaded(),
            CommandError::Unavailable(cause) => Self::new(
                ProblemCode::Unavailable,
                "The service cannot process commands at the moment; retry shortly",
            )
            .because(cause.as_ref()),
            CommandError::Broken(error) => Self::broken(&error),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        Self::from(&error)
    }
}

impl From<&LogError> for Problem {
    fn from(error: &LogError) -> Self {
        match error {
            LogError::Unavailable(_) => Self::new(
                ProblemCode::Unavailable,
                "The service cannot process the request at the moment; retry shortly",
            )
            .because(error),
            LogError::Broken(source)
                if SqlState::from_error(source) == Some(SqlState::NotPermitted) =>
            {
                Self::broken(error).lacks_right()
            }
            LogError::Undecodable { .. } | LogError::Broken(_) => Self::broken(error),
        }
    }
}

impl From<ActionError> for Problem {
    fn from(error: ActionError) -> Self {
        let detail = error.to_string();
        match error {
            ActionError::NotFound(_) => Self::new(ProblemCode::DeadLetterNotFound, detail),
            ActionError::Discarded(_) => Self::new(ProblemCode::DeadLetterDiscarded, detail),
            ActionError::Waiting { .. } => Self::new(ProblemCode::DeadLetterWaiting, detail),
            ActionError::Unavailable(error) => error.into(),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        LogError::from(error).into()
    }
}
