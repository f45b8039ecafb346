//! What operations have in common: who may call, headers, and what can go
//! wrong. Written here once instead of at each handler.

use serde_json::{Map, Value, json};

use crate::{idempotency, rate_limit, request_log, response};

/// A problem that operations answer with: its status, name and an example of
/// its detail.
pub type Answered = (u16, &'static str, &'static str);

/// What can go wrong in one of the descriptions.
#[derive(Clone, Copy)]
pub struct Failures {
    /// All of it.
    pub problems: &'static [Answered],
    /// The statuses of an operation.
    pub of: fn(&str) -> &'static [u16],
}

/// Completes the description.
pub fn complete(document: &mut Value, failures: Failures) {
    document["security"] = json!([{ "token": [] }]);
    let components = &mut document["components"];
    components["securitySchemes"] = json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A JSON Web Token of the issuer that the service trusts. `sub` is the \
                reader (a UUID, or any other text, from which one is made), `exp` must be there, \
                and `type`, if it is, must be `access`.",
        }
    });
    components["headers"] = headers();
    components["responses"] = failures
        .problems
        .iter()
        .map(|(status, name, detail)| ((*name).to_owned(), problem(*status, detail)))
        .collect::<Map<_, _>>()
        .into();
    for operation in operations(document) {
        complete_operation(operation, failures);
    }
}

/// The operations, one after the other.
pub fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    document["paths"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
        .filter_map(Value::as_object_mut)
        .flat_map(Map::values_mut)
}

fn complete_operation(operation: &mut Value, failures: Failures) {
    let id = operation["operationId"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let is_command = operation["tags"][0] == "commands";
    let is_versioned = matches!(id.as_str(), "session" | "active");

    let mut answered = with_common_headers(json!({}));
    if (is_command && id != "batchUpdate") || is_versioned {
        answered[axum::http::header::ETAG.as_str()] = header_of("ETag");
    }
    if id == "erase" {
        answered[response::GLOBAL_POSITION.as_str()] = header_of("GlobalPosition");
    }
    if id == "export" {
        answered[axum::http::header::CONTENT_DISPOSITION.as_str()] =
            header_of("ContentDisposition");
    }
    if is_command {
        answered[response::GLOBAL_POSITION.as_str()] = header_of("GlobalPosition");
        answered[idempotency::REPLAYED.as_str()] = header_of("Replayed");
        parameter(operation, &key());
    }
    if id == "history" {
        answered[axum::http::header::LINK.as_str()] = header_of("Link");
    }
    if id == "active" {
        answered[axum::http::header::WARNING.as_str()] = header_of("Warning");
    }
    let responses = &mut operation["responses"];
    for success in ["200", "201", "202"] {
        if let Some(response) = responses.get_mut(success) {
            response["headers"] = answered.clone();
        }
    }
    if id == "start" {
        responses["201"]["links"] = links();
    }
    if is_versioned {
        responses["304"] = json!({
            "description": "As the client knows it already",
            "headers": answered,
        });
        parameter(
            operation,
            &json!({
                "name": "If-None-Match",
                "in": "header",
                "description": "The `ETag` of what the client has",
                "schema": { "type": "string" },
            }),
        );
    }
    let responses = &mut operation["responses"];
    for status in (failures.of)(&id) {
        let (_, name, _) = failures
            .problems
            .iter()
            .find(|(known, _, _)| known == status)
            .expect("every failure is described");
        responses[status.to_string()] = json!({ "$ref": format!("#/components/responses/{name}") });
    }
}

/// What can be done with the session that was started.
fn links() -> Value {
    ["session", "update", "end"]
        .map(|operation| {
            let link = json!({
                "operationId": operation,
                "parameters": { "id": "$response.body#/id" },
            });
            (operation.to_owned(), link)
        })
        .into_iter()
        .collect::<Map<_, _>>()
        .into()
}

fn parameter(operation: &mut Value, parameter: &Value) {
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(parameter.clone()),
        None => operation["parameters"] = json!([parameter]),
    }
}

fn key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes the command repeatable: a repeat with the same key gets the first \
            answer, also when that was a refusal, for at least a day. The same key with another \
            command is 422.",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
    })
}

fn with_common_headers(mut headers: Value) -> Value {
    headers[request_log::REQUEST_ID.as_str()] = header_of("RequestId");
    headers[rate_limit::LIMIT.as_str()] = header_of("RateLimitLimit");
    headers[rate_limit::REMAINING.as_str()] = header_of("RateLimitRemaining");
    headers[rate_limit::RESET.as_str()] = header_of("RateLimitReset");
    headers
}

fn header_of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

fn headers() -> Value {
    let header = |description: &str, kind: &str| json!({ "description": description, "schema": { "type": kind } });
    json!({
        "RequestId": header("Names the request in the service's log", "string"),
        "RateLimitLimit": header("Calls that may be made in a window", "integer"),
        "RateLimitRemaining": header("Calls that are left", "integer"),
        "RateLimitReset": header("Seconds until more are left", "integer"),
        "RetryAfter": header(
            "Seconds to wait before trying again; absent when that would not help",
            "integer"
        ),
        "ETag": header("The version of what is answered", "string"),
        "GlobalPosition": header(
            "The position in the log of the last event that the answer holds, for `min_position`; \
                absent when all of a batch was refused, or there was nothing to erase",
            "integer"
        ),
        "ContentDisposition": header("That it is a file, and its name", "string"),
        "Replayed": header("`true` for the first answer to a repeated command", "string"),
        "Link": header("Where the next page is (RFC 8288)", "string"),
        "Warning": header("`110 - \"Response is Stale\"` while the database is away", "string"),
    })
}

fn problem(status: u16, detail: &str) -> Value {
    let title = axum::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or_default();
    let mut example = json!({
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    });
    if status == 422 {
        let (field, message) = detail.split_once(": ").unwrap_or(("", detail));
        example["errors"] = json!([{ "field": field, "message": message }]);
    }
    let mut headers = with_common_headers(json!({}));
    if matches!(status, 409 | 429 | 503 | 504) {
        headers["retry-after"] = header_of("RetryAfter");
    }
    json!({
        "description": title,
        "headers": headers,
        "content": {
            "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" },
                "example": example,
            }
        }
    })
}
