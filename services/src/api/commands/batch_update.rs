//! `POST /reading-sessions/batch-update`

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::TimeDelta;
use domain::command::Occurrence;
use domain::{SessionError, SessionId, Timestamp, UpdatePosition};
use eventlog::execute::BatchUpdate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::MAX_LOCATOR;
use crate::api;
use crate::api::auth::Reader;
use crate::api::extract::{CommandContext, Json, Percent, text};
use crate::api::problem::Problem;
use crate::api::session::answer;
use crate::clock;

/// Updates in one batch.
const MAX_UPDATES: usize = 50;

/// Up to 50 observations.
#[derive(Debug, Deserialize)]
pub struct Body {
    /// Parsed one by one: a bad one is not the others' fault.
    updates: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Item {
    session_id: String,
    current_position: Percent,
    locator: Option<String>,
    occurred_at: Option<Timestamp>,
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    success_count: usize,
    failed_count: usize,
    /// A sentence for each update that was refused.
    errors: Vec<String>,
    /// What became of each update, in the order sent.
    results: Vec<ItemResult>,
}

#[derive(Debug, Serialize)]
struct ItemResult {
    session_id: Option<String>,
    /// Whether the update was taken.
    success: bool,
    /// Whether its position became the latest.
    applied: bool,
    /// The session's version after it.
    version: Option<i64>,
    error: Option<String>,
}

/// Moves many positions in one transaction.
pub async fn handle(
    State(state): State<api::State>,
    Reader(reader_id): Reader,
    CommandContext(context): CommandContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let count = body.updates.len();
    if count == 0 || count > MAX_UPDATES {
        let message = format!("from 1 to {MAX_UPDATES} updates, not {count}");
        return Err(Problem::invalid("updates", message));
    }
    let now = clock::now();
    // Updates without a time are taken to be in the order sent, the last one
    // now, a millisecond apart.
    let arrival = |index: usize| {
        let before = i64::try_from(count - 1 - index).expect("at most 50");
        now - TimeDelta::milliseconds(before)
    };
    let items: Vec<_> = body
        .updates
        .into_iter()
        .enumerate()
        .map(|(index, item)| read(item, arrival(index)))
        .collect();

    let good: Vec<BatchUpdate> = items
        .iter()
        .filter_map(|(_, update)| update.as_ref().ok().cloned())
        .collect();
    let (mut outcomes, global_position) = if good.is_empty() {
        (Vec::new().into_iter(), None)
    } else {
        let outcome = state
            .sessions
            .update_positions(reader_id, good, context)
            .await?;
        (outcome.results.into_iter(), outcome.global_position)
    };

    let mut answered = Answer::default();
    for (session_id, update) in items {
        let outcome = match update {
            Ok(update) => outcomes
                .next()
                .ok_or_else(Problem::internal)?
                .map_err(|refusal| sentence(refusal, update.session_id)),
            Err(error) => Err(error),
        };
        answered.add(session_id, outcome);
    }
    Ok(answer(StatusCode::OK, &answered, None, global_position))
}

/// An update, or the sentence that says what is wrong with it.
fn read(
    item: serde_json::Value,
    arrived: Timestamp,
) -> (Option<String>, Result<BatchUpdate, String>) {
    let named = item
        .get("session_id")
        .and_then(|id| Some(id.as_str()?.to_owned()));
    let item: Item = match serde_path_to_error::deserialize(item) {
        Ok(item) => item,
        Err(error) => return (named, Err(format!("Invalid update: {error}"))),
    };
    let update = (|| {
        let session_id = Uuid::try_parse(&item.session_id)
            .map_err(|_| format!("Invalid UUID format: {}", item.session_id))?;
        let locator = text("locator", item.locator, MAX_LOCATOR)
            .map_err(|_| "Invalid update: locator too long or with a NUL character".to_owned())?;
        let occurred = Occurrence::new(item.occurred_at, arrived)
            .map_err(|refusal| format!("Invalid update: {refusal}"))?;
        Ok(BatchUpdate {
            session_id: SessionId::from_uuid(session_id),
            update: UpdatePosition {
                position: item.current_position.0,
                locator,
                occurred,
            },
        })
    })();
    (named, update)
}

fn sentence(refusal: SessionError, session_id: SessionId) -> String {
    match refusal {
        SessionError::NotFound | SessionError::Inactive => {
            format!("Session {session_id} not found or not active")
        }
        other => other.to_string(),
    }
}

impl Answer {
    fn add(&mut self, session_id: Option<String>, outcome: Result<(i64, bool), String>) {
        let result = match outcome {
            Ok((version, applied)) => {
                self.success_count += 1;
                ItemResult {
                    session_id,
                    success: true,
                    applied,
                    version: Some(version),
                    error: None,
                }
            }
            Err(error) => {
                self.failed_count += 1;
                self.errors.push(error.clone());
                ItemResult {
                    session_id,
                    success: false,
                    applied: false,
                    version: None,
                    error: Some(error),
                }
            }
        };
        self.results.push(result);
    }
}
