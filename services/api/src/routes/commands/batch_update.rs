//! `POST /reading-sessions/batch-update`

use axum::extract::State;
use axum::response::Response;
use commands::{BatchOutcome, BatchUpdate, CommandService, Observed};
use domain::clock::{self as device_clock, Occurrence};
use domain::{SessionError, SessionId, Standing, Timestamp, UpdatePosition};
use eventlog::clock;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::Caller;
use crate::extract::{Hint, Json, Percent, RequestContext, hints, item};
use crate::openapi::types;
use crate::problem::{Problem, ProblemCode, echo};
use crate::response::CommandResponse;
use crate::warnings::{Warning, Warnings};

const MAX_UPDATES: usize = 50;

/// Up to 50 position updates.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BatchUpdate)]
pub struct Body {
    // Parsed one by one, so that an invalid update does not block the others.
    #[schema(value_type = Vec<Item>, min_items = 1, max_items = 50)]
    updates: Vec<Box<RawValue>>,
    #[schema(schema_with = types::sent_at)]
    sent_at: Option<Timestamp>,
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
    locator: Option<Hint>,
    #[schema(schema_with = types::occurred_at)]
    occurred_at: Option<Timestamp>,
}

/// The results of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchResult<'a> {
    success_count: usize,
    failed_count: usize,
    /// The `error` of each refused update.
    errors: Vec<String>,
    /// The result of each update, in the order of the request.
    results: Vec<ItemResult>,
    /// The parts of the request that the service changed or ignored. Missing if there are
    /// none.
    #[serde(skip_serializing_if = "Warnings::is_empty")]
    #[schema(value_type = Vec<Warning>)]
    warnings: &'a Warnings,
}

/// The result of one update.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemResult {
    /// The `session_id` of the update, cut after 100 bytes. Null if it was missing or not a
    /// string.
    #[schema(required)]
    session_id: Option<String>,
    /// Whether the update was accepted.
    success: bool,
    /// Whether its observation is now the latest one. False for a refused update.
    applied: bool,
    /// The session's version after the update. Null for a refused update.
    #[schema(required)]
    version: Option<i64>,
    /// The problem code of a refused update. Null for an accepted update.
    #[schema(required)]
    code: Option<ProblemCode>,
    /// Why the update was refused. Null for an accepted update.
    #[schema(required)]
    error: Option<String>,
}

/// Why an update was refused.
#[derive(Clone, Debug)]
struct Refusal {
    code: ProblemCode,
    error: String,
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
    let mut warnings = Warnings::default();
    let parsed: Vec<ParsedItem> = body.updates.iter().map(|item| parse(item)).collect();
    let valid = parsed.iter().filter_map(|(_, item)| item.as_ref().ok());
    let times: Vec<Option<Timestamp>> = valid.map(|item| item.occurred_at).collect();
    let mut occurrences = device_clock::place(&times, body.sent_at, clock::now()).into_iter();
    let items: Vec<_> = parsed
        .into_iter()
        .enumerate()
        .map(|(index, (session_id, item))| {
            let mut of_item = Warnings::default();
            let update = item.and_then(|item| {
                let occurred = occurrences.next().expect("one for each valid item");
                let occurred =
                    occurred.map_err(|refusal| invalid(format!("Invalid update: {refusal}")))?;
                of_item.add_shift(occurred, body.sent_at);
                item.update(occurred, &mut of_item)
            });
            warnings.add_item(&format!("updates[{index}]"), of_item);
            (session_id, update)
        })
        .collect();
    let valid = items
        .iter()
        .filter_map(|(_, update)| update.as_ref().ok().cloned())
        .collect();
    let committed = commands
        .update_positions(caller.reader_id, valid, context, move |outcome| {
            let last_event = outcome.last_event;
            CommandResponse::for_batch(last_event, &BatchResult::new(&items, outcome, &warnings))
        })
        .await?;
    Ok(CommandResponse::from_committed(committed))
}

/// The session id as in the request, and the item or its refusal.
type ParsedItem = (Option<String>, Result<Item, Refusal>);

/// The session id as in the request, and the update or its refusal.
type ParsedUpdate = (Option<String>, Result<BatchUpdate, Refusal>);

fn parse(item: &RawValue) -> ParsedItem {
    match item::parse::<Item>(item) {
        Ok(parsed) => (Some(echo(&parsed.session_id)), Ok(parsed)),
        Err(error) => {
            let refusal = invalid(format!("Invalid update: {error}"));
            (item::session_id(item), Err(refusal))
        }
    }
}

impl Item {
    fn update(self, occurred: Occurrence, warnings: &mut Warnings) -> Result<BatchUpdate, Refusal> {
        let session_id = Uuid::try_parse(&self.session_id)
            .map_err(|_| invalid(format!("Invalid UUID format: {}", echo(&self.session_id))))?;
        Ok(BatchUpdate {
            session_id: SessionId::from_uuid(session_id),
            update: UpdatePosition {
                position: self.current_position.0,
                locator: hints::locator(self.locator, warnings),
                occurred,
                standing: Standing::Active,
            },
        })
    }
}

fn invalid(error: String) -> Refusal {
    let code = ProblemCode::Validation;
    Refusal { code, error }
}

/// Contains the message of the original service, where it had one.
fn refused(refusal: SessionError, session_id: SessionId) -> Refusal {
    let error = match refusal {
        SessionError::NotFound | SessionError::Inactive => {
            format!("Session {session_id} not found or not active")
        }
        other => other.to_string(),
    };
    let code = Problem::from(refusal).code();
    Refusal { code, error }
}

impl<'a> BatchResult<'a> {
    /// `outcome` has a result for each valid item, in the same order.
    fn new(items: &[ParsedUpdate], outcome: BatchOutcome, warnings: &'a Warnings) -> Self {
        let mut outcomes = outcome.results.into_iter();
        let mut result = Self {
            success_count: 0,
            failed_count: 0,
            errors: Vec::new(),
            results: Vec::with_capacity(items.len()),
            warnings,
        };
        for (session_id, update) in items {
            let outcome = match update {
                Ok(update) => outcomes
                    .next()
                    .expect("one result for each valid item")
                    .map_err(|refusal| refused(refusal, update.session_id)),
                Err(refusal) => Err(refusal.clone()),
            };
            result.add(session_id.clone(), outcome);
        }
        result
    }

    fn add(&mut self, session_id: Option<String>, outcome: Result<Observed, Refusal>) {
        let accepted = outcome.as_ref().ok().copied();
        self.success_count += usize::from(accepted.is_some());
        self.failed_count += usize::from(accepted.is_none());
        let refusal = outcome.err();
        let error = refusal.as_ref().map(|refusal| refusal.error.clone());
        self.errors.extend(error.clone());
        self.results.push(ItemResult {
            session_id,
            success: accepted.is_some(),
            applied: accepted.is_some_and(|observed| observed.applied),
            version: accepted.map(|observed| observed.version),
            code: refusal.map(|refusal| refusal.code),
            error,
        });
    }
}
