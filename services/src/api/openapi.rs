//! The API's description, made from the code: `OpenAPI` 3.1 at `/openapi.json`,
//! and its page at `/docs`, which asks nothing of any other server.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use serde_json::Value;
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::commands::{batch_update, end, start, update};
use super::problem::{self, Problem};
use super::queries::{active, daily, history, patterns, session, streak, weekly};

mod common;
mod examples;
pub mod schema;

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
    ),
    components(schemas(problem::Json)),
    tags(
        (name = "commands", description = "What the reader does"),
        (name = "queries", description = "What the reader did"),
        (name = "statistics", description = "How much and when")
    )
)]
struct Api;

/// The description.
#[must_use]
pub fn document() -> Value {
    let mut document = serde_json::to_value(Api::openapi()).expect("it is plain JSON");
    document["info"]["description"] = include_str!("openapi/guide.md").into();
    common::complete(&mut document);
    examples::add(&mut document);
    document
}

/// As it is served and committed.
#[must_use]
pub fn json() -> String {
    let mut json = serde_json::to_string_pretty(&document()).expect("it is plain JSON");
    json.push('\n');
    json
}

/// What the page of the documentation may load: its own files, and styles and
/// pictures that it writes itself.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; frame-ancestors 'none'";

/// `/openapi.json` and `/docs`.
pub fn router() -> Router {
    let json = json();
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
            response
        }));
    page.route(
        "/openapi.json",
        get(async || ([(header::CONTENT_TYPE, "application/json")], json)),
    )
}
