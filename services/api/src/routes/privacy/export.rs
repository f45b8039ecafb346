//! `GET /reading-sessions/export`

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use domain::ReaderId;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::auth::Caller;
use crate::export::{ExportDocument, ExportFormat, Exporter};
use crate::extract::StrictQuery;
use crate::problem::Problem;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// `json` contains all data. `csv` has one row per event, with its most
    /// important fields. A text in it that a spreadsheet would execute as a formula
    /// gets an apostrophe; `json` contains it unchanged.
    #[param(inline)]
    #[serde(default)]
    pub format: ExportFormat,
}

/// Export all of the reader's data
///
/// Returns every event of every session, in chronological order. The response
/// is a stream. If the client takes longer than 75 seconds to read it, the service
/// closes the connection, and the end of the JSON is missing.
#[utoipa::path(
    get,
    path = "/api/v1/reading-sessions/export",
    operation_id = "export",
    tag = "privacy",
    params(Params),
    responses((
        status = 200,
        description = "The export",
        content((ExportDocument = "application/json"), (String = "text/csv"))
    ))
)]
pub async fn handle(
    State(exporter): State<Exporter>,
    caller: Caller,
    StrictQuery(params): StrictQuery<Params>,
) -> Result<Response, Problem> {
    stream(&exporter, caller.reader_id, params.format).await
}

/// The response with the export of a reader.
pub async fn stream(
    exporter: &Exporter,
    reader_id: ReaderId,
    format: ExportFormat,
) -> Result<Response, Problem> {
    let mut chunks = exporter.stream(reader_id, format);
    // Read the first page before sending the status, so that the request fails with
    // 503 if Postgres is unavailable, and does not return a truncated export.
    let first = chunks.try_next().await?;
    let chunks = stream::iter(first.map(Ok)).chain(chunks);
    let file = format!("attachment; filename=\"{}\"", format.file_name());
    let headers: [(HeaderName, HeaderValue); 2] = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.media_type()),
        ),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::try_from(file).expect("file names are plain ASCII"),
        ),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
