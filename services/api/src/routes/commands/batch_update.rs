//! `POST /reading-sessions/batch-update`

use axum::extract::State;
use axum::response::Response;
use chrono::TimeDelta;
use commands::{BatchOutcome, BatchUpdate, CommandService};
use domain::command::Occurrence;
use domain::{SessionError, SessionId, Timestamp, UpdatePosition};
use eventlog::clock;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::MAX_LOCATOR;
use crate::auth::Caller;
use crate::extract::{Json, JsonObject, Percent, RequestContext, bounded_text};
use crate::openapi::types;
use crate::problem::{FieldError, Problem};
use crate::response::CommandResponse;

const MAX_UPDATES: usize = 50;

/// Up to 50 position updates.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BatchUpdate)]
pub struct Body {
    // Parsed one by one, so that an invalid update does not block the others.
    #[schema(value_type = Vec<Item>, min_items = 1, max_items = 50)]
    updates: Vec<serde_json::Value>,
}

/// One position update.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BatchItem)]
pub struct Item {
    #[schema(format = Uuid)]
    session_id: String,
    #[schema(schema_with = types::current_position)]
    current_position: Percent,
    #[schema(schema_with = types::locator)]
    locator: Option<String>,
    #[schema(schema_with = types::occurred_at)]
    occurred_at: Option<Timestamp>,
}

/// The results of a batch.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct BatchResult {
    success_count: usize,
    failed_count: usize,
    /// The `error` of each refused update.
    errors: Vec<String>,
    /// The result of each update, in the order of the request.
    results: Vec<ItemResult>,
}

/// The result of one update.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemResult {
    /// The `session_id` of the update. Null if it was missing or not a string.
    #[schema(required)]
    session_id: Option<String>,
    /// Whether the update was accepted.
    success: bool,
    /// Whether its observation is now the latest one. False for a refused update.
    applied: bool,
    /// The session's version after the update. Null for a refused update.
    #[schema(required)]
    version: Option<i64>,
    /// Why the update was refused. Null for an accepted update.
    #[schema(required)]
    error: Option<String>,
}

/// Update several positions
///
/// Records all accepted updates in one transaction. An invalid or refused update
/// does not block the others. Several updates of one session are applied in the
/// order of `occurred_at`; updates without it, in the order of the request.
#[utoipa::path(
    post,
    path = "/api/v1/reading-sessions/batch-update",
    operation_id = "batchUpdate",
    tag = "commands",
    request_body = Body,
    responses((status = 200, description = "The result of each update", body = BatchResult))
)]
pub async fn handle(
    State(commands): State<CommandService>,
    caller: Caller,
    RequestContext(context): RequestContext,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let count = body.updates.len();
    if count == 0 || count > MAX_UPDATES {
        let message = format!("must contain 1 to {MAX_UPDATES} updates, not {count}");
        return Err(Problem::invalid("updates", message));
    }
    let now = clock::now();
    // Updates without a time get times in the order of the request, one
    // millisecond apart; the last one gets the current time.
    let arrival = |index: usize| {
        let before = i64::try_from(count - 1 - index).expect("at most 50 updates");
        now - TimeDelta::milliseconds(before)
    };
    let items: Vec<_> = body
        .updates
        .into_iter()
        .enumerate()
        .map(|(index, item)| parse(item, arrival(index)))
        .collect();
    let valid = items
        .iter()
        .filter_map(|(_, update)| update.as_ref().ok().cloned())
        .collect();
    let committed = commands
        .update_positions(caller.reader_id, valid, context, move |outcome| {
            let last_event = outcome.last_event;
            CommandResponse::for_batch(last_event, &BatchResult::new(&items, outcome))
        })
        .await?;
    Ok(CommandResponse::from_committed(committed))
}

/// The session id as in the request, and the update or its error message.
type ParsedItem = (Option<String>, Result<BatchUpdate, String>);

fn parse(item: serde_json::Value, arrived: Timestamp) -> ParsedItem {
    let sent_id = item
        .get("session_id")
        .and_then(|id| Some(id.as_str()?.to_owned()));
    let item: Item = match serde_path_to_error::deserialize(item) {
        Ok(JsonObject(item)) => item,
        Err(error) => {
            let error = FieldError::from_parser(error.path(), &error.inner().to_string());
            return (sent_id, Err(format!("Invalid update: {error}")));
        }
    };
    let update = (|| {
        let session_id = Uuid::try_parse(&item.session_id)
            .map_err(|_| format!("Invalid UUID format: {}", item.session_id))?;
        let locator = bounded_text("locator", item.locator, MAX_LOCATOR)
            .map_err(|_| "Invalid update: locator is too long or contains NUL".to_owned())?;
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
    (sent_id, update)
}

/// The messages of the original service, where it had one.
fn message(refusal: SessionError, session_id: SessionId) -> String {
    match refusal {
        SessionError::NotFound | SessionError::Inactive => {
            format!("Session {session_id} not found or not active")
        }
        other => other.to_string(),
    }
}

impl BatchResult {
    /// `outcome` has a result for each valid item, in the same order.
    fn new(items: &[ParsedItem], outcome: BatchOutcome) -> Self {
        let mut outcomes = outcome.results.into_iter();
        let mut result = Self::default();
        for (session_id, update) in items {
            let outcome = match update {
                Ok(update) => outcomes
                    .next()
                    .expect("one result for each valid item")
                    .map_err(|refusal| message(refusal, update.session_id)),
                Err(error) => Err(error.clone()),
            };
            result.add(session_id.clone(), outcome);
        }
        result
    }

    fn add(&mut self, session_id: Option<String>, outcome: Result<(i64, bool), String>) {
        let accepted = outcome.as_ref().ok().copied();
        self.success_count += usize::from(accepted.is_some());
        self.failed_count += usize::from(accepted.is_none());
        self.errors.extend(outcome.as_ref().err().cloned());
        self.results.push(ItemResult {
            session_id,
            success: accepted.is_some(),
            applied: accepted.is_some_and(|(_, applied)| applied),
            version: accepted.map(|(version, _)| version),
            error: outcome.err(),
        });
    }
}
