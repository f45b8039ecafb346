//! Turns every error into an RFC 9457 problem document. No other module writes
//! error responses. The log receives the internal cause; the client never does.

use std::fmt::Display;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use eventlog::error::error_chain;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::AdminAccess;

mod code;
mod echo;
mod from;

pub use code::ProblemCode;
pub use echo::echo;

/// The value of `Retry-After`, in seconds, for problems that pass by themselves.
const RETRY_AFTER: u32 = 1;

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    code: ProblemCode,
    detail: String,
    errors: Vec<FieldError>,
    /// For the log only.
    cause: Option<String>,
    /// Whether the cause is that the role of this process in Postgres lacks a right.
    lacks_right: bool,
    /// The access to the admin API that the token lacks.
    required: AdminAccess,
}

/// An error in one field of the request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// The path of the field, for example `book.title`. The names of query
    /// parameters and headers are paths too.
    pub field: String,
    /// The error, in English.
    pub message: String,
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemDocument<'a> {
    /// Always `about:blank`. `code` identifies the error.
    pub(super) r#type: &'a str,
    /// The standard name of the status.
    pub(super) title: &'a str,
    pub(super) status: u16,
    pub(super) code: ProblemCode,
    /// An explanation in English for people. Its wording may change.
    pub(super) detail: &'a str,
    /// The id of the request, as in the header `X-Request-Id`. Quote it when you
    /// report an error: the log of the service contains it.
    pub(super) request_id: &'a str,
    /// The invalid fields, if the error concerns fields.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) errors: &'a [FieldError],
}

impl Problem {
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            cause: None,
            lacks_right: false,
            required: AdminAccess::None,
        }))
    }

    /// The request has no bearer token.
    #[must_use]
    pub fn missing_token() -> Self {
        Self::new(ProblemCode::MissingToken, "Not authenticated")
    }

    /// The token is valid, and its scope does not allow the call.
    #[must_use]
    pub fn insufficient_scope(required: AdminAccess) -> Self {
        let detail = match required {
            AdminAccess::None | AdminAccess::Read => {
                "This call requires a token with the scope reading:admin:read or reading:admin"
            }
            AdminAccess::Act => {
                "This call changes something and requires a token with the scope reading:admin"
            }
        };
        let mut problem = Self::new(ProblemCode::Forbidden, detail);
        problem.0.required = required;
        problem
    }

    /// Returns 400 and not 422 because the original service did.
    #[must_use]
    pub fn invalid_book_id(book_id: &str) -> Self {
        let detail = format!("Invalid book_id format: {}", echo(book_id));
        Self::new(ProblemCode::InvalidBookId, detail)
    }

    /// No route matches the path of the request.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ProblemCode::NotFound, "No route matches this path")
    }

    /// A command with the same `Idempotency-Key` is in progress.
    #[must_use]
    pub fn key_in_use() -> Self {
        Self::new(
            ProblemCode::IdempotencyKeyInUse,
            "A command with this Idempotency-Key is in progress; retry for its response",
        )
    }

    /// The path exists, but not with this method. The router adds `Allow`.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(
            ProblemCode::MethodNotAllowed,
            "This path does not support this method",
        )
    }

    /// A field is invalid. An empty `field` is the whole body.
    #[must_use]
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::in_field(ProblemCode::Validation, field.into(), message.into())
    }

    /// A field is invalid, as the parser found.
    #[must_use]
    pub fn invalid_field(error: FieldError) -> Self {
        Self::invalid(error.field, error.message)
    }

    /// A number is outside of `min..=max`.
    #[must_use]
    pub fn out_of_range(field: &str, min: impl Display, max: impl Display) -> Self {
        Self::invalid(field, format!("must be from {min} to {max}"))
    }

    /// The `Idempotency-Key` belongs to another command.
    #[must_use]
    pub fn key_reused(header: &str) -> Self {
        Self::in_field(
            ProblemCode::IdempotencyKeyReused,
            header.to_owned(),
            "already used for another command".to_owned(),
        )
    }

    /// The call does not know a query parameter, and must not ignore it. `known` are
    /// the parameters of the call.
    #[must_use]
    pub fn unknown_parameter(name: &str, known: &[&str]) -> Self {
        let known = match known {
            [] => "this call has no parameters".to_owned(),
            known => format!("the parameters of this call are {}", known.join(", ")),
        };
        let message = format!("unknown parameter; {known}");
        Self::in_field(ProblemCode::UnknownParameter, echo(name), message)
    }

    /// The call takes no body, and must not ignore it.
    #[must_use]
    pub fn unexpected_body() -> Self {
        Self::new(
            ProblemCode::UnexpectedBody,
            "This call takes no body; nothing was done",
        )
    }

    fn in_field(code: ProblemCode, field: String, message: String) -> Self {
        let detail = if field.is_empty() {
            message.clone()
        } else {
            format!("{field}: {message}")
        };
        let mut problem = Self::new(code, detail);
        problem.0.errors.push(FieldError { field, message });
        problem
    }

    /// The client has used up a rate limit. The caller adds `Retry-After`.
    #[must_use]
    pub fn too_many_requests(seconds: u64) -> Self {
        Self::new(
            ProblemCode::RateLimited,
            format!("Rate limit exceeded. Try again in {seconds} seconds."),
        )
    }

    /// The reader has used up the daily budget of stored bytes. The caller adds
    /// `Retry-After`.
    #[must_use]
    pub fn quota(seconds: u64) -> Self {
        Self::new(
            ProblemCode::Quota,
            format!("Daily storage budget exceeded. Try again in {seconds} seconds."),
        )
    }

    /// The read model did not reach `min_position` in time.
    #[must_use]
    pub fn read_model_behind() -> Self {
        Self::new(
            ProblemCode::ReadModelBehind,
            "The read model has not reached `min_position` yet; retry shortly",
        )
    }

    /// An error that a retry does not solve, with its cause for the log.
    #[must_use]
    pub fn broken(cause: &dyn std::error::Error) -> Self {
        Self::internal().because(cause)
    }

    #[must_use]
    pub fn internal() -> Self {
        Self::new(ProblemCode::Internal, "Internal server error")
    }

    /// The service accepts no more work at the moment; it has not begun this
    /// request.
    #[must_use]
    pub fn overloaded() -> Self {
        Self::new(
            ProblemCode::Overloaded,
            "The service is overloaded; retry shortly",
        )
    }

    #[must_use]
    pub fn shutting_down() -> Self {
        Self::new(
            ProblemCode::ShuttingDown,
            "The service is shutting down; retry shortly",
        )
    }

    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.0.code.status()
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    #[must_use]
    pub const fn code(&self) -> ProblemCode {
        self.0.code
    }

    /// Adds the cause, for the log only.
    #[must_use]
    pub fn because(mut self, cause: &dyn std::error::Error) -> Self {
        self.0.cause = Some(error_chain(cause));
        self
    }

    /// The role of this process in Postgres lacks a right. Clients of the public API get an
    /// internal error; the admin API explains it.
    #[must_use]
    pub(crate) fn lacks_right(mut self) -> Self {
        self.0.lacks_right = true;
        self
    }

    /// Explains to an operator that this process may not do what a call needs. Other
    /// problems stay as they are.
    pub(crate) fn explain_missing_right(response: &mut Response) {
        let Some(problem) = response.extensions_mut().get_mut::<Self>() else {
            return;
        };
        if problem.0.lacks_right {
            problem.0.code = ProblemCode::Forbidden;
            "The Postgres role of this process may not do this; send the call to a process with \
             the role jobs"
                .clone_into(&mut problem.0.detail);
            *response.status_mut() = ProblemCode::Forbidden.status();
        }
    }

    /// The cause, for the log.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The value of `WWW-Authenticate` (RFC 6750, section 3); `None` if the problem does
    /// not concern the token.
    #[must_use]
    pub fn challenge(&self) -> Option<HeaderValue> {
        if let Some(scope) = self.0.required.scope() {
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
            return HeaderValue::try_from(challenge).ok();
        }
        let challenge = match self.0.code {
            ProblemCode::MissingToken => "Bearer",
            ProblemCode::InvalidToken | ProblemCode::TokenExpired => {
                "Bearer error=\"invalid_token\""
            }
            _ => return None,
        };
        Some(HeaderValue::from_static(challenge))
    }

    /// Writes the document into the response. The layer that has the request's
    /// id calls this.
    pub fn write(&self, response: &mut Response, request_id: &str) {
        let status = self.status();
        let document = ProblemDocument {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: self.0.code,
            detail: &self.0.detail,
            request_id,
            errors: &self.0.errors,
        };
        let json = serde_json::to_vec(&document).expect("a problem is plain JSON");
        *response.body_mut() = Body::from(json);
        // The length is that of the empty body.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
    }
}

/// The response has no body yet: [`Problem::write`] adds it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = status.into_response();
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge() {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        let passes = matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        if passes || self.0.code == ProblemCode::IdempotencyKeyInUse {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        response.extensions_mut().insert(self);
        response
    }
}
