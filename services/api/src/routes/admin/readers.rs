//! `/admin/readers/{id}`: how much is stored, export and erasure.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use domain::{ReaderId, Timestamp};
use eventlog::{clock, erase};
use jobs::erasure;
use projections::cache::Cache;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::recorded::RecordedAction;
use crate::export::{ExportDocument, Exporter};
use crate::extract::{NoBody, ReaderPath, StrictQuery};
use crate::problem::{Problem, ProblemCode};
use crate::routes::privacy;
use crate::routes::privacy::erase::EraseResponse;

/// The dependencies of the handlers.
#[derive(Clone)]
pub struct ReaderHandles {
    pub pool: PgPool,
    pub cache: Cache,
    pub exporter: Exporter,
}

/// How much the log contains of a reader.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reader)]
pub struct ReaderResponse {
    #[schema(value_type = Uuid)]
    id: ReaderId,
    /// Sessions that are not erased.
    sessions: i64,
    /// The events of these sessions.
    events: i64,
    /// Null if nothing of the reader was erased.
    #[schema(required)]
    erasure: Option<ErasureStatus>,
}

/// The progress of the erasures of a reader, of all sessions or of single ones.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErasureStatus {
    /// The time of the last request.
    #[schema(value_type = DateTime)]
    erased_at: Timestamp,
    /// The number of erased sessions.
    sessions: i64,
    /// The number of their events that are overwritten.
    overwritten_events: i64,
    /// When the last event was overwritten. Null while some remain.
    #[schema(required, value_type = Option<DateTime>)]
    done_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EraseParams {
    /// The id of the reader again, as a safeguard against accidental calls.
    confirm: Uuid,
}

/// Retrieve how much is stored of a reader
///
/// Returns the number of sessions and events, and the progress of erasures.
#[utoipa::path(
    get,
    path = "/api/v1/admin/readers/{id}",
    operation_id = "reader",
    tag = "readers",
    params(("id" = Uuid, Path, description = "The reader")),
    responses((status = 200, description = "The reader", body = ReaderResponse))
)]
pub async fn show(
    State(handles): State<ReaderHandles>,
    ReaderPath(id): ReaderPath,
) -> Result<Json<ReaderResponse>, Problem> {
    let pool = &handles.pool;
    let extent = erase::extent(pool, id).await?;
    let erasure = erase::find(pool, id).await?;
    if extent.sessions == 0 && erasure.is_none() {
        return Err(not_found(id));
    }
    Ok(Json(ReaderResponse {
        id,
        sessions: extent.sessions,
        events: extent.events,
        erasure: erasure.map(|erasure| ErasureStatus {
            erased_at: erasure.erased_at,
            sessions: erasure.sessions,
            overwritten_events: erasure.events,
            done_at: erasure.done_at,
        }),
    }))
}

/// Export all data of a reader
///
/// Returns what the reader's own export contains. It is a POST because it is recorded in
/// the audit and needs the scope `reading:admin`.
#[utoipa::path(
    post,
    path = "/api/v1/admin/readers/{id}/export",
    operation_id = "exportReader",
    tag = "readers",
    params(
        ("id" = Uuid, Path, description = "The reader"),
        privacy::export::Params,
    ),
    responses((
        status = 200,
        description = "The export",
        content((ExportDocument = "application/json"), (String = "text/csv"))
    ))
)]
pub async fn export(
    State(handles): State<ReaderHandles>,
    recorded: RecordedAction,
    ReaderPath(id): ReaderPath,
    StrictQuery(params): StrictQuery<privacy::export::Params>,
    NoBody: NoBody,
) -> Result<Response, Problem> {
    if erase::extent(&handles.pool, id).await?.sessions == 0 {
        return Err(not_found(id));
    }
    let response = privacy::export::stream(&handles.exporter, id, params.format).await?;
    Ok(recorded.end_with_body(response))
}

/// Erase all data of a reader
///
/// Once this request returns, none of the reader's sessions can be read. History and
/// statistics are cleared within moments. Afterwards the job `erasures` overwrites the
/// events in the log. An erasure cannot be undone; repeating it is harmless.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/readers/{id}",
    operation_id = "eraseReader",
    tag = "readers",
    params(("id" = Uuid, Path, description = "The reader"), EraseParams),
    responses((status = 202, description = "The sessions are erased", body = EraseResponse))
)]
pub async fn erase(
    State(handles): State<ReaderHandles>,
    ReaderPath(id): ReaderPath,
    StrictQuery(params): StrictQuery<EraseParams>,
    NoBody: NoBody,
) -> Result<(StatusCode, Json<EraseResponse>), Problem> {
    if ReaderId::from(params.confirm) != id {
        return Err(Problem::invalid("confirm", "must be the id in the path"));
    }
    let ReaderHandles { pool, cache, .. } = handles;
    if erase::extent(&pool, id).await?.sessions == 0 && erase::find(&pool, id).await?.is_none() {
        return Err(not_found(id));
    }
    let erased_at = domain::clock::normalize(clock::now());
    let erased = erase::reader(&pool, id, erased_at).await?;
    erasure::start(&cache, pool.into(), id, erased).await;
    let response = EraseResponse {
        sessions: erased.sessions,
        erased_at,
    };
    Ok((StatusCode::ACCEPTED, Json(response)))
}

fn not_found(id: ReaderId) -> Problem {
    Problem::new(
        ProblemCode::ReaderNotFound,
        format!("The log contains no session of reader {id}"),
    )
}
