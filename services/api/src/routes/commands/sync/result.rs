//! The result of one session of a sync.

use commands::SyncOutcome;
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{Problem, ProblemCode};
use crate::session::SessionResponse;

/// The result of one session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SyncedSession)]
pub struct SessionResult {
    /// The `session_id` of the session, cut after 100 bytes. Null if it was missing or not
    /// a string.
    #[schema(required)]
    session_id: Option<String>,
    /// Whether the session is stored with the observations that are not in `refused`.
    success: bool,
    /// The session in its current state. Null if `success` is false.
    #[schema(required, value_type = Option<SessionResponse>)]
    session: Option<SessionResponse>,
    /// How many of the observations the service did not have yet.
    new_observations: usize,
    /// The observations that the service refused.
    refused: Vec<RefusedObservation>,
    /// The problem code, if `success` is false. Otherwise null.
    #[schema(required)]
    code: Option<ProblemCode>,
    /// Why the session was refused. Null if `success` is true.
    #[schema(required)]
    error: Option<String>,
}

/// An observation that the service refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RefusedObservation {
    /// The index in `observations`, from 0.
    index: usize,
    code: ProblemCode,
    error: String,
}

impl SessionResult {
    pub(super) fn merged(
        outcome: &SyncOutcome,
        indexes: &[usize],
        mut refused: Vec<RefusedObservation>,
    ) -> Self {
        let mut new_observations = 0;
        for (index, result) in indexes.iter().zip(&outcome.results) {
            match result {
                Ok(observed) => new_observations += usize::from(observed.is_new),
                Err(refusal) => {
                    refused.push(RefusedObservation::new(*index, &Problem::from(*refusal)));
                }
            }
        }
        refused.sort_by_key(|refused| refused.index);
        let versioned = &outcome.versioned;
        let session = versioned.session.started();
        Self {
            session_id: Some(outcome.session_id.to_string()),
            success: true,
            session: session.map(|session| {
                SessionResponse::new(outcome.session_id, versioned.sequence, session)
            }),
            new_observations,
            refused,
            code: None,
            error: None,
        }
    }

    pub(super) fn refused(session_id: Option<String>, problem: &Problem) -> Self {
        Self {
            session_id,
            success: false,
            session: None,
            new_observations: 0,
            refused: Vec::new(),
            code: Some(problem.code()),
            error: Some(problem.detail().to_owned()),
        }
    }
}

impl RefusedObservation {
    pub(super) fn new(index: usize, problem: &Problem) -> Self {
        Self {
            index,
            code: problem.code(),
            error: problem.detail().to_owned(),
        }
    }
}
