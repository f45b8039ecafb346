//! The API's description, made from the code: `OpenAPI` 3.1 at `/openapi.json`,
//! and its page at `/docs`, which asks nothing of any other server.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use serde_json::Value;
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::routes::commands::{batch_update, end, start, update};
use crate::routes::privacy::{erase, export};
use crate::problem::{self, Problem};
use crate::routes::queries::{active, daily, history, patterns, session, streak, weekly};

mod common;
mod examples;
pub mod admin;
pub mod types;

use common::{Answered, Failures};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Reading Sessions",
        description = "",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        start::handle,
        update::handle,
        end::handle,
        batch_update::handle,
        session::handle,
        active::handle,
        history::handle,
        daily::handle,
        weekly::handle,
        streak::handle,
        patterns::handle,
        export::handle,
        erase::handle,
    ),
    components(schemas(problem::Json)),
    tags(
        (name = "commands", description = "What the reader does"),
        (name = "queries", description = "What the reader did"),
        (name = "statistics", description = "How much and when"),
        (name = "data", description = "The reader's data as a whole")
    )
)]
struct Api;

/// The description.
#[must_use]
pub fn document() -> Value {
    let mut document = serde_json::to_value(Api::openapi()).expect("it is plain JSON");
    document["info"]["description"] = include_str!("openapi/guide.md").into();
    let failures = Failures {
        problems: &PROBLEMS,
        of: failures,
    };
    common::complete(&mut document, failures);
    examples::add(&mut document);
    document
}

/// What can go wrong.
const PROBLEMS: [Answered; 12] = [
    (400, "BadRequest", "Cannot update inactive session"),
    (401, "Unauthorized", "Could not validate credentials"),
    (404, "NotFound", "Reading session not found"),
    (408, "TooSlow", "The body took too long to arrive"),
    (
        409,
        "Conflict",
        "A command with this Idempotency-Key is being done; ask again for its answer",
    ),
    (413, "TooLarge", "The body is larger than 64 KB"),
    (
        415,
        "UnsupportedMediaType",
        "The body must be application/json",
    ),
    (
        422,
        "Invalid",
        "current_position: A position must be a number from 0 to 100",
    ),
    (
        429,
        "TooManyRequests",
        "Rate limit exceeded. Try again in 12 seconds.",
    ),
    (500, "Broken", "The service made a mistake"),
    (
        503,
        "Unavailable",
        "The service cannot take commands now; try again shortly",
    ),
    (
        504,
        "NotYet",
        "The answer does not hold that position yet; try again shortly",
    ),
];

/// By operation.
fn failures(operation: &str) -> &'static [u16] {
    match operation {
        "start" | "batchUpdate" => &[400, 401, 408, 409, 413, 415, 422, 429, 500, 503],
        "update" | "end" => &[400, 401, 404, 408, 409, 413, 415, 422, 429, 500, 503],
        "session" => &[401, 404, 422, 429, 500, 503, 504],
        "history" => &[400, 401, 422, 429, 500, 503, 504],
        "export" | "erase" => &[401, 422, 429, 500, 503],
        _ => &[401, 422, 429, 500, 503, 504],
    }
}

/// As it is served and committed.
#[must_use]
pub fn json(document: &Value) -> String {
    let mut json = serde_json::to_string_pretty(document).expect("it is plain JSON");
    json.push('\n');
    json
}

/// What the page of the documentation may load: its own files, and styles and
/// pictures that it writes itself.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; frame-ancestors 'none'";

/// `/openapi.json` and `/docs`.
pub fn router() -> Router {
    let page = SwaggerUi::new("/docs").config(
        Config::from("/openapi.json")
            .try_it_out_enabled(true)
            .persist_authorization(true),
    );
    let page =
        Router::from(page).layer(middleware::map_response(async |mut response: Response| {
            if response.status() == StatusCode::NOT_FOUND {
                return Problem::not_found("There is nothing at this address").into_response();
            }
            let headers = response.headers_mut();
            headers.insert(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(PAGE_POLICY),
            );
            // The page is some ten requests, and they count.
            headers.insert(
                header::CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=3600"),
            );
            // Another page's script gets more headers with it.
            headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
            response
        }));
    page.merge(served(&document()))
}

/// `/openapi.json`.
fn served(document: &Value) -> Router {
    let json = json(document);
    Router::new().route(
        "/openapi.json",
        get(async || ([(header::CONTENT_TYPE, "application/json")], json)),
    )
}
