//! The parts that all operations share: authentication, headers and problems. The
//! handlers do not repeat them.

use axum::http::{StatusCode, header};
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use crate::problem::ProblemCode;
use crate::{idempotency, rate_limit, request_log, response};

/// A response with a problem, as a component of the document.
#[derive(Clone, Copy)]
pub struct ProblemResponse {
    /// The name of the component.
    pub name: &'static str,
    /// The codes of the response, all with the same status. The example has the
    /// first one.
    pub codes: &'static [ProblemCode],
    /// The `detail` of the example.
    pub detail: &'static str,
}

impl ProblemResponse {
    pub const fn status(&self) -> StatusCode {
        self.codes[0].status()
    }
}

pub const UNAUTHORIZED: ProblemResponse = ProblemResponse {
    name: "Unauthorized",
    codes: &[
        ProblemCode::InvalidToken,
        ProblemCode::MissingToken,
        ProblemCode::TokenExpired,
    ],
    detail: "Could not validate credentials",
};

pub const METHOD_NOT_ALLOWED: ProblemResponse = ProblemResponse {
    name: "MethodNotAllowed",
    codes: &[ProblemCode::MethodNotAllowed],
    detail: "This path does not support this method",
};

pub const TOO_MANY_REQUESTS: ProblemResponse = ProblemResponse {
    name: "TooManyRequests",
    codes: &[ProblemCode::RateLimited],
    detail: "Rate limit exceeded. Try again in 12 seconds.",
};

pub const INTERNAL_SERVER_ERROR: ProblemResponse = ProblemResponse {
    name: "InternalServerError",
    codes: &[ProblemCode::Internal],
    detail: "Internal server error",
};

/// The problems of one document.
#[derive(Clone, Copy)]
pub struct Problems {
    pub responses: &'static [ProblemResponse],
    /// Returns the statuses of an operation's problems.
    pub statuses: fn(operation: &str) -> &'static [u16],
}

/// The document of an API, with its guide and the shared parts.
pub fn document(api: &OpenApi, guide: &str, problems: Problems) -> Value {
    let mut document = serde_json::to_value(api).expect("the document is plain JSON");
    document["info"]["description"] = guide.into();
    document["security"] = json!([{ "token": [] }]);
    let components = &mut document["components"];
    components["securitySchemes"] = json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A JSON Web Token of an issuer that the service trusts. `sub` is the \
                reader's id; the service derives a UUID from any other text. `exp` is required. \
                If there is a `type`, it must be `access`.",
        }
    });
    components["headers"] = headers();
    components["responses"] = problems
        .responses
        .iter()
        .map(|response| (response.name.to_owned(), problem_response(response)))
        .collect::<Map<_, _>>()
        .into();
    // Only the codes of this API.
    let codes = problems
        .responses
        .iter()
        .flat_map(|response| response.codes);
    components["schemas"]["ProblemCode"]["enum"] = codes.map(|code| json!(code)).collect();
    for operation in operations(&mut document) {
        complete_operation(operation, problems);
    }
    document
}

pub fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    document["paths"]
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
        .filter_map(Value::as_object_mut)
        .flat_map(Map::values_mut)
}

fn complete_operation(operation: &mut Value, problems: Problems) {
    let id = operation["operationId"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let is_command = operation["tags"][0] == "commands";
    let is_versioned = matches!(id.as_str(), "session" | "active");

    let mut headers = with_common_headers(json!({}));
    if (is_command && !matches!(id.as_str(), "batchUpdate" | "sync")) || is_versioned {
        headers[header::ETAG.as_str()] = header_ref("ETag");
    }
    if matches!(id.as_str(), "erase" | "delete") {
        headers[response::GLOBAL_POSITION.as_str()] = header_ref("GlobalPosition");
    }
    if matches!(id.as_str(), "export" | "exportReader") {
        headers[header::CONTENT_DISPOSITION.as_str()] = header_ref("ContentDisposition");
    }
    if is_command {
        headers[response::GLOBAL_POSITION.as_str()] = header_ref("GlobalPosition");
        headers[idempotency::REPLAYED.as_str()] = header_ref("Replayed");
        add_parameter(operation, &idempotency_key());
    }
    if id == "history" {
        headers[header::LINK.as_str()] = header_ref("Link");
    }
    if id == "active" {
        headers[header::WARNING.as_str()] = header_ref("Warning");
    }
    let responses = &mut operation["responses"];
    for success in ["200", "201", "202", "204"] {
        if let Some(response) = responses.get_mut(success) {
            response["headers"] = headers.clone();
        }
    }
    if id == "start" {
        responses["201"]["links"] = links();
    }
    if is_versioned {
        responses["304"] = json!({
            "description": "The client has this version",
            "headers": headers,
        });
        add_parameter(
            operation,
            &json!({
                "name": "If-None-Match",
                "in": "header",
                "description": "The `ETag` of the version that the client has",
                "schema": { "type": "string" },
            }),
        );
    }
    let responses = &mut operation["responses"];
    for &status in (problems.statuses)(&id) {
        let ProblemResponse { name, .. } = problems
            .responses
            .iter()
            .find(|response| response.status() == status)
            .expect("there is a response for every status");
        responses[status.to_string()] = json!({ "$ref": format!("#/components/responses/{name}") });
    }
}

/// The operations that take the id of the started session.
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

fn add_parameter(operation: &mut Value, parameter: &Value) {
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(parameter.clone()),
        None => operation["parameters"] = json!([parameter]),
    }
}

fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes the command safe to retry. A retry with the same key returns the \
            first response, also if that was an error, for at least a day. The key of another \
            command returns 422.",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
    })
}

fn with_common_headers(mut headers: Value) -> Value {
    headers[request_log::REQUEST_ID.as_str()] = header_ref("RequestId");
    headers[rate_limit::LIMIT.as_str()] = header_ref("RateLimitLimit");
    headers[rate_limit::REMAINING.as_str()] = header_ref("RateLimitRemaining");
    headers[rate_limit::RESET.as_str()] = header_ref("RateLimitReset");
    headers
}

fn header_ref(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

fn headers() -> Value {
    let header = |description: &str, kind: &str| json!({ "description": description, "schema": { "type": kind } });
    json!({
        "RequestId": header("The id of the request in the service's log", "string"),
        "RateLimitLimit": header("The number of requests per window", "integer"),
        "RateLimitRemaining": header("The number of requests that are left", "integer"),
        "RateLimitReset": header("Seconds until `X-RateLimit-Remaining` increases", "integer"),
        "RetryAfter": header(
            "Seconds to wait before a retry. Missing if a retry does not help.",
            "integer"
        ),
        "ETag": header("The version of the session", "string"),
        "GlobalPosition": header(
            "The position of the command's last event in the log. Pass it as `min_position`. \
                Missing if the command appended no event: all updates of a batch were refused, \
                or there was nothing to erase.",
            "integer"
        ),
        "ContentDisposition": header("The name of the file", "string"),
        "Replayed": header("`true` if this is the stored response to a retried command", "string"),
        "Link": header("The next page (RFC 8288)", "string"),
        "Warning": header("`110 - \"Response is Stale\"` while the database is unavailable", "string"),
    })
}

fn problem_response(response: &ProblemResponse) -> Value {
    let ProblemResponse { codes, detail, .. } = response;
    let status = response.status();
    let title = status.canonical_reason().unwrap_or_default();
    let mut example = json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "code": codes[0],
        "detail": detail,
        "request_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    });
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        let (field, message) = detail.split_once(": ").unwrap_or(("", detail));
        example["errors"] = json!([{ "field": field, "message": message }]);
    }
    let mut headers = with_common_headers(json!({}));
    if matches!(status.as_u16(), 409 | 429 | 503 | 504) {
        headers["retry-after"] = header_ref("RetryAfter");
    }
    let codes: Vec<_> = codes
        .iter()
        .map(|code| format!("`{}`", json!(code)))
        .collect();
    let codes = codes.join(", ").replace('"', "");
    json!({
        "description": format!("{title}: {codes}"),
        "headers": headers,
        "content": {
            "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" },
                "example": example,
            }
        }
    })
}
