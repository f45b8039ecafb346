//! The `OpenAPI` 3.1 document of the API for client apps, generated from the code.
//! It is served at `/openapi.json`. The page at `/docs` works offline.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use serde_json::{Map, Value};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::problem::{Problem, ProblemCode, ProblemDocument};
use crate::routes::commands::{batch_update, correct, end, start, sync, update};
use crate::routes::privacy::{delete, erase, export};
use crate::routes::queries::{active, daily, history, patterns, session, streak, weekly};

pub mod admin;
mod common;
mod examples;
pub mod types;

use common::{ProblemResponse, Problems};

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
        sync::handle,
        correct::handle,
        session::handle,
        active::handle,
        history::handle,
        daily::handle,
        weekly::handle,
        streak::handle,
        patterns::handle,
        export::handle,
        erase::handle,
        delete::handle,
    ),
    components(schemas(ProblemDocument)),
    tags(
        (name = "commands", description = "Change sessions"),
        (name = "queries", description = "Read sessions"),
        (name = "statistics", description = "Reading time and progress by day, week and hour"),
        (name = "privacy", description = "Export, erase and delete the reader's data")
    )
)]
struct Api;

/// The OpenAPI document for client apps.
#[must_use]
pub fn document() -> Value {
    let problems = Problems {
        responses: &PROBLEMS,
        statuses,
    };
    let guide = include_str!("openapi/guide.md");
    let mut document = common::document(&Api::openapi(), guide, problems);
    examples::add(&mut document);
    remove_number_formats(&mut document);
    document
}

/// Removes the format `double`, which utoipa adds to every `f64`. Positions have
/// at most four decimals, so clients may also use decimal types.
fn remove_number_formats(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object_mut();
    let properties = schemas
        .into_iter()
        .flat_map(Map::values_mut)
        .filter_map(|schema| schema.get_mut("properties")?.as_object_mut())
        .flat_map(Map::values_mut)
        .filter(|property| property["type"] == "number")
        .filter_map(Value::as_object_mut);
    for property in properties {
        property.remove("format");
    }
}

const PROBLEMS: [ProblemResponse; 13] = [
    ProblemResponse {
        name: "BadRequest",
        codes: &[
            ProblemCode::SessionInactive,
            ProblemCode::SessionAlreadyEnded,
            ProblemCode::SessionActive,
            ProblemCode::MalformedJson,
            ProblemCode::IncompleteBody,
            ProblemCode::InvalidBookId,
            ProblemCode::InvalidCursor,
            ProblemCode::UnknownParameter,
            ProblemCode::UnexpectedBody,
        ],
        detail: "Cannot update inactive session",
    },
    common::UNAUTHORIZED,
    ProblemResponse {
        name: "NotFound",
        codes: &[ProblemCode::SessionNotFound, ProblemCode::NotFound],
        detail: "Reading session not found",
    },
    common::METHOD_NOT_ALLOWED,
    ProblemResponse {
        name: "RequestTimeout",
        codes: &[ProblemCode::RequestTimeout],
        detail: "The body took too long to arrive",
    },
    ProblemResponse {
        name: "Conflict",
        codes: &[
            ProblemCode::IdempotencyKeyInUse,
            ProblemCode::SessionIdInUse,
            ProblemCode::Conflict,
        ],
        detail: "A command with this Idempotency-Key is in progress; retry for its response",
    },
    ProblemResponse {
        name: "TooLarge",
        codes: &[ProblemCode::BodyTooLarge],
        detail: "The body is larger than 64 KB, or 1 MB for a sync",
    },
    ProblemResponse {
        name: "UnsupportedMediaType",
        codes: &[
            ProblemCode::UnsupportedMediaType,
            ProblemCode::UnsupportedContentEncoding,
        ],
        detail: "The body must be application/json",
    },
    ProblemResponse {
        name: "Invalid",
        codes: &[ProblemCode::Validation, ProblemCode::IdempotencyKeyReused],
        detail: "current_position: A position must be a number from 0 to 100",
    },
    ProblemResponse {
        codes: &[ProblemCode::RateLimited, ProblemCode::Quota],
        ..common::TOO_MANY_REQUESTS
    },
    common::INTERNAL_SERVER_ERROR,
    ProblemResponse {
        name: "Unavailable",
        codes: &[
            ProblemCode::Unavailable,
            ProblemCode::Overloaded,
            ProblemCode::KeysUnavailable,
            ProblemCode::DeadlineExceeded,
        ],
        detail: "The service cannot process commands at the moment; retry shortly",
    },
    ProblemResponse {
        name: "ReadModelBehind",
        codes: &[ProblemCode::ReadModelBehind],
        detail: "The read model has not reached `min_position` yet; retry shortly",
    },
];

/// The statuses of the problems that an operation returns.
fn statuses(operation: &str) -> &'static [u16] {
    match operation {
        "start" | "batchUpdate" | "sync" => &[400, 401, 408, 409, 413, 415, 422, 429, 500, 503],
        "update" | "end" | "correct" => &[400, 401, 404, 408, 409, 413, 415, 422, 429, 500, 503],
        "session" => &[401, 404, 422, 429, 500, 503, 504],
        "history" => &[400, 401, 422, 429, 500, 503, 504],
        "delete" => &[400, 401, 404, 422, 429, 500, 503],
        "export" | "erase" => &[400, 401, 422, 429, 500, 503],
        _ => &[401, 422, 429, 500, 503, 504],
    }
}

/// The text of a document, as served and as committed in `docs`.
#[must_use]
pub fn json(document: &Value) -> String {
    let mut json = serde_json::to_string_pretty(document).expect("the document is plain JSON");
    json.push('\n');
    json
}

/// The page may load its own files, inline styles and `data:` images.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; frame-ancestors 'none'";

/// `/openapi.json` and `/docs`.
pub fn router() -> Router {
    // `persist_authorization` would store the token in the browser.
    let config = Config::from("/openapi.json").try_it_out_enabled(true);
    let page = SwaggerUi::new("/docs").config(config);
    let page =
        Router::from(page).layer(middleware::map_response(async |mut response: Response| {
            if response.status() == StatusCode::NOT_FOUND {
                return Problem::not_found().into_response();
            }
            let headers = response.headers_mut();
            headers.insert(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(PAGE_POLICY),
            );
            // The page makes about ten requests, which count towards the rate limit.
            headers.insert(
                header::CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=3600"),
            );
            // Requests from scripts of other pages get CORS headers.
            headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
            response
        }));
    page.merge(document_router(&document()))
}

/// Serves the document at `/openapi.json`.
fn document_router(document: &Value) -> Router {
    let json = json(document);
    Router::new().route(
        "/openapi.json",
        get(async || ([(header::CONTENT_TYPE, "application/json")], json)),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use utoipa::PartialSchema;

    use super::*;

    /// The codes in a table of the document's description, with the second cells.
    /// `second` is the title of the second column.
    fn table_of_codes<'a>(document: &'a Value, second: &str) -> BTreeMap<&'a str, &'a str> {
        let header = format!("| code | {second} |");
        let description = document["info"]["description"].as_str().unwrap();
        let rows = description
            .lines()
            .skip_while(|line| !line.starts_with(&header));
        rows.skip(2)
            .map_while(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|');
                let code = cells.next()?.trim().trim_end_matches('`');
                Some((code, cells.next()?.trim()))
            })
            .collect()
    }

    /// The codes of problems in the document's description, with their statuses.
    fn documented_codes(document: &Value) -> BTreeMap<String, u16> {
        let codes = table_of_codes(document, "status").into_iter();
        let codes = codes.map(|(code, status)| (code.to_owned(), status.parse().unwrap()));
        codes.collect()
    }

    /// The codes of the schema `ProblemCode` in the document, with their statuses.
    fn schema_codes(document: &Value) -> BTreeMap<String, u16> {
        codes(&document["components"]["schemas"]["ProblemCode"])
    }

    fn codes(schema: &Value) -> BTreeMap<String, u16> {
        let codes = schema["enum"].as_array().unwrap().iter().map(|code| {
            let status = ProblemCode::deserialize(code).unwrap().status();
            (code.as_str().unwrap().to_owned(), status.as_u16())
        });
        codes.collect()
    }

    #[test]
    fn guides_list_the_codes_of_their_documents() {
        for document in [document(), admin::document()] {
            assert_eq!(documented_codes(&document), schema_codes(&document));
        }
    }

    #[test]
    fn guide_lists_the_codes_of_warnings() {
        let document = document();
        let schema = &document["components"]["schemas"]["WarningCode"];
        let codes: Vec<_> = schema["enum"].as_array().unwrap().iter().collect();
        let table = table_of_codes(&document, "fields");
        assert_eq!(table.len(), codes.len());
        for code in codes {
            assert!(table.contains_key(code.as_str().unwrap()), "{code}");
        }
    }

    #[test]
    fn every_code_is_in_a_document() {
        let all = codes(&serde_json::to_value(ProblemCode::schema()).unwrap());
        let mut documented = schema_codes(&document());
        documented.extend(schema_codes(&admin::document()));
        assert_eq!(documented, all);
    }

    #[test]
    fn codes_of_a_response_share_its_status() {
        for response in PROBLEMS.iter().chain(&admin::PROBLEMS) {
            let status = response.status();
            assert!(response.codes.iter().all(|code| code.status() == status));
        }
    }
}
