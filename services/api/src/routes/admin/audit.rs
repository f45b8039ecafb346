//! `GET /admin/audit`

use axum::Json;
use axum::extract::{Path, State};
use domain::Timestamp;
use eventlog::audit::{self, Entry, Origin, Outcome};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use utoipa::{IntoParams, ToSchema};

use super::page;
use crate::extract::Query;
use crate::problem::{Problem, ProblemCode};

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// The number of entries per page.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<i64>,
    /// The `next` of the previous page.
    cursor: Option<String>,
}

/// A page of the audit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
pub struct AuditPage {
    /// Newest first.
    pub entries: Vec<AuditEntryResponse>,
    /// The `cursor` of the next page. Null on the last page.
    #[schema(required)]
    pub next: Option<String>,
}

/// An action of an operator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditEntryResponse {
    pub id: String,
    #[schema(value_type = DateTime)]
    pub at: Timestamp,
    /// The subject of the token, or `user@host` of the command line, which the caller can
    /// choose.
    pub actor: String,
    /// The role of Postgres with which the action was recorded.
    pub database_role: String,
    #[schema(inline, value_type = AuditOrigin)]
    pub origin: Origin,
    /// For example `pause`, `replay` or `erase_reader`.
    pub action: String,
    /// The name of the projection or job, or the id of the dead letter or reader. Null if
    /// the action has none.
    #[schema(required)]
    pub target: Option<String>,
    /// Options and results of the action.
    #[schema(value_type = Object)]
    pub details: Value,
    #[schema(inline, value_type = AuditOutcome)]
    pub outcome: Outcome,
    /// Null while the outcome is `started`.
    #[schema(required, value_type = Option<DateTime>)]
    pub ended_at: Option<Timestamp>,
    /// Why the action failed. Null if it did not.
    #[schema(required)]
    pub error: Option<String>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(
    dead_code,
    reason = "the schema of `Origin`: its crate does not depend on utoipa"
)]
enum AuditOrigin {
    Http,
    Cli,
}

/// `started`: the action runs. An entry that stays `started` belongs to a process that was
/// killed or could not write to Postgres; its action may have taken effect.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(
    dead_code,
    reason = "the schema of `Outcome`: its crate does not depend on utoipa"
)]
enum AuditOutcome {
    Started,
    Succeeded,
    Failed,
}

impl From<Entry> for AuditEntryResponse {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            at: entry.at,
            actor: entry.actor,
            database_role: entry.role,
            origin: entry.origin,
            action: entry.action,
            target: entry.target,
            details: entry.details,
            outcome: entry.outcome,
            ended_at: entry.ended_at,
            error: entry.error,
        }
    }
}

impl AuditPage {
    /// Loads the page with at most `limit` entries before the entry `before`.
    #[must_use]
    pub fn load<'a>(
        database: impl PgExecutor<'a> + 'a,
        before: Option<i64>,
        limit: i64,
    ) -> BoxFuture<'a, Result<Self, eventlog::LogError>> {
        async move {
            let mut found = audit::list(database, before, limit + 1).await?;
            Ok(Self {
                next: page::cut(&mut found, limit, |last| last.id.to_string()),
                entries: found.into_iter().map(AuditEntryResponse::from).collect(),
            })
        }
        .boxed()
    }
}

/// List actions of operators
///
/// Returns what operators did over HTTP and on the command line, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/admin/audit",
    operation_id = "audit",
    tag = "audit",
    params(Params),
    responses((status = 200, description = "A page of the audit", body = AuditPage))
)]
pub async fn list(
    State(pool): State<PgPool>,
    Query(params): Query<Params>,
) -> Result<Json<AuditPage>, Problem> {
    let limit @ 1..=MAX_LIMIT = params.limit.unwrap_or(DEFAULT_LIMIT) else {
        return Err(Problem::out_of_range("limit", 1, MAX_LIMIT));
    };
    let before = params.cursor.map(|cursor| parse_id("cursor", &cursor));
    let page = AuditPage::load(&pool, before.transpose()?, limit).await?;
    Ok(Json(page))
}

/// Retrieve an action
///
/// Returns one entry of the audit. A verification adds its result to `details`.
#[utoipa::path(
    get,
    path = "/api/v1/admin/audit/{id}",
    operation_id = "auditEntry",
    tag = "audit",
    params(("id" = String, Path, description = "The entry")),
    responses((status = 200, description = "The entry", body = AuditEntryResponse))
)]
pub async fn show(
    State(pool): State<PgPool>,
    Path(id): Path<String>,
) -> Result<Json<AuditEntryResponse>, Problem> {
    let id = parse_id("id", &id)?;
    let entry = audit::find(&pool, id).await?.ok_or_else(|| {
        let detail = format!("There is no audit entry {id}");
        Problem::new(ProblemCode::AuditEntryNotFound, detail)
    })?;
    Ok(Json(entry.into()))
}

fn parse_id(field: &str, id: &str) -> Result<i64, Problem> {
    id.parse()
        .map_err(|_| Problem::invalid(field, "must be the id of an audit entry"))
}
