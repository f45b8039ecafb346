//! `POST /reading-sessions/batch-update`

use axum::extract::State;
use axum::response::Response;
use chrono::TimeDelta;
use domain::command::Occurrence;
use domain::{SessionError, SessionId, Timestamp, UpdatePosition};
use commands::CommandService;
use commands::{BatchOutcome, BatchUpdate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::MAX_LOCATOR;
use crate::response::CommandResponse;
use crate::auth::Caller;
use crate::extract::{RequestContext, Fault, Json, Object, Percent, text};
use crate::openapi::types;
use crate::problem::Problem;
use eventlog::clock;

/// Updates in one batch.
const MAX_UPDATES: usize = 50;

/// Up to 50 observations.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BatchUpdate)]
pub struct Body {
    /// Parsed one by one: a bad one is not the others' fault.
    #[schema(value_type = Vec<Item>, min_items = 1, max_items = 50)]
    updates: Vec<serde_json::Value>,
}

/// One observation.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BatchItem)]
pub struct Item {
    #[schema(format = Uuid)]
    session_id: String,
    #[schema(schema_with = types::percent_sent)]
    current_position: Percent,
    /// Where exactly, in the app's own words, for example an EPUB CFI.
    #[schema(max_length = 2048)]
    locator: Option<String>,
    /// When it was, if not now: at most 30 days ago. A time ahead of the service's
    /// clock, by up to a day, is taken as now.
    #[schema(value_type = Option<DateTime>)]
    occurred_at: Option<Timestamp>,
}

/// What became of a batch.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct BatchResult {
    success_count: usize,
    failed_count: usize,
    /// A sentence for each update that was refused.
    errors: Vec<String>,
    /// What became of each update, in the order sent.
    results: Vec<ItemResult>,
}

/// What became of one update.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemResult {
    /// As it was sent; null when it was none.
    #[schema(required)]
    session_id: Option<String>,
    /// Whether the update was taken.
    success: bool,
    /// Whether its position became the latest.
    applied: bool,
    /// The session's version after it.
    #[schema(required)]
    version: Option<i64>,
    #[schema(required)]
    error: Option<String>,
}

/// Move many positions
///
/// In one transaction. A bad update never blocks another; several for one
/// session are applied in the order of their time.
#[utoipa::path(
    post,
    path = "/api/v1/reading-sessions/batch-update",
    operation_id = "batchUpdate",
    tag = "commands",
    request_body = Body,
    responses((status = 200, description = "What became of each", body = BatchResult))
)]
pub async fn handle(
    State(sessions): State<CommandService>,
    caller: Caller,
    RequestContext(context): RequestContext,
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
    let good = items
        .iter()
        .filter_map(|(_, update)| update.as_ref().ok().cloned())
        .collect();
    let done = sessions
        .update_positions(caller.reader_id, good, context, move |outcome| {
            let last_event = outcome.last_event;
            CommandResponse::of_batch(last_event, &BatchResult::of(&items, outcome))
        })
        .await?;
    Ok(done.answer.response(done.global_position))
}

/// The session id as it was sent, and the update, or the sentence that says
/// what is wrong with it.
type ReadItem = (Option<String>, Result<BatchUpdate, String>);

fn read(item: serde_json::Value, arrived: Timestamp) -> ReadItem {
    let named = item
        .get("session_id")
        .and_then(|id| Some(id.as_str()?.to_owned()));
    let item: Item = match serde_path_to_error::deserialize(item) {
        Ok(Object(item)) => item,
        Err(error) => {
            let fault = Fault::new(error.path(), &error.inner().to_string());
            return (named, Err(format!("Invalid update: {fault}")));
        }
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

impl BatchResult {
    /// The outcome has a result for each good item, in their order.
    fn of(items: &[ReadItem], outcome: BatchOutcome) -> Self {
        let mut outcomes = outcome.results.into_iter();
        let mut result = Self::default();
        for (session_id, update) in items {
            let outcome = match update {
                Ok(update) => outcomes
                    .next()
                    .expect("one for each good item")
                    .map_err(|refusal| sentence(refusal, update.session_id)),
                Err(error) => Err(error.clone()),
            };
            result.add(session_id.clone(), outcome);
        }
        result
    }

    fn add(&mut self, session_id: Option<String>, outcome: Result<(i64, bool), String>) {
        let taken = outcome.as_ref().ok().copied();
        self.success_count += usize::from(taken.is_some());
        self.failed_count += usize::from(taken.is_none());
        self.errors.extend(outcome.as_ref().err().cloned());
        self.results.push(ItemResult {
            session_id,
            success: taken.is_some(),
            applied: taken.is_some_and(|(_, applied)| applied),
            version: taken.map(|(version, _)| version),
            error: outcome.err(),
        });
    }
}
