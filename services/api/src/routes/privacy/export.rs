//! `GET /reading-sessions/export`

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::Caller;
use crate::extract::Query;
use crate::problem::Problem;
use crate::export::{Exports, Format, Json};

/// How.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// JSON has all of it; CSV has a row an event.
    #[param(inline)]
    #[serde(default)]
    format: Format,
}

/// All of the reader's data
///
/// Every event of every session, in the order of time, as the log holds them.
/// It comes as a stream; one that takes longer than 75 seconds is cut off, and
/// then the end of the JSON is missing.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/export",
    operation_id = "export",
    tag = "data",
    params(Params),
    responses((
        status = 200,
        description = "The data",
        content((Json = "application/json"), (String = "text/csv"))
    ))
)]
pub async fn handle(
    State(exports): State<Exports>,
    caller: Caller,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    let mut chunks = Box::pin(exports.of(caller.reader_id, params.format));
    // Before anything is promised: a log that is away is 503.
    let first = chunks.try_next().await?;
    let chunks = stream::iter(first.map(Ok)).chain(chunks);
    let file = format!("attachment; filename=\"{}\"", params.format.file_name());
    let headers: [(HeaderName, HeaderValue); 2] = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(params.format.media_type()),
        ),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::try_from(file).expect("plain ASCII"),
        ),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
