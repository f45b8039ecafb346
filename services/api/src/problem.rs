//! Every error becomes an RFC 9457 problem here, and nowhere else. `detail` is
//! a sentence for people; what went wrong inside goes to the log, not to the
//! client.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::SessionError;
use commands::CommandError;
use eventlog::LogError;
use serde::Serialize;
use utoipa::ToSchema;

use projections::dead_letters::actions::ActionError;

/// How long a client that met an overloaded or broken service should wait, in
/// seconds.
const RETRY_AFTER: u32 = 1;

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    detail: String,
    errors: Vec<FieldError>,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// The field, as a path.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Json<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    pub(super) r#type: &'a str,
    /// The status in words.
    pub(super) title: &'a str,
    pub(super) status: u16,
    /// A sentence for people.
    pub(super) detail: &'a str,
    /// Also in the header `X-Request-Id`, and in the service's log.
    pub(super) request_id: &'a str,
    /// What is wrong with which field.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) errors: &'a [FieldError],
}

impl Problem {
    /// A problem with a sentence for people.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            header: None,
            cause: None,
        }))
    }

    /// 400: what was sent cannot be understood, or is not possible now.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized(detail: &str) -> Self {
        let challenge = HeaderValue::from_static("Bearer");
        Self::new(StatusCode::UNAUTHORIZED, detail).with(header::WWW_AUTHENTICATE, challenge)
    }

    /// 403: the token is good, and not for this.
    #[must_use]
    pub fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: the same command is being done.
    #[must_use]
    pub fn in_flight() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "A command with this Idempotency-Key is being done; ask again for its answer",
        )
        .with(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER))
    }

    /// 409: not as things are.
    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 405; the router says which methods are allowed.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not allowed here",
        )
    }

    /// 422: one field is not as it must be.
    #[must_use]
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let (field, message) = (field.into(), message.into());
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            if field.is_empty() {
                message.clone()
            } else {
                format!("{field}: {message}")
            },
        );
        problem.0.errors.push(FieldError { field, message });
        problem
    }

    /// 429; the wait is told in seconds, in the text and by the caller's
    /// headers.
    #[must_use]
    pub fn too_many_requests(seconds: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("Rate limit exceeded. Try again in {seconds} seconds."),
        )
    }

    /// 504: what the query should wait for did not come in time.
    #[must_use]
    pub fn not_yet() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "The answer does not hold that position yet; try again shortly",
        )
        .with(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER))
    }

    /// 500, for what must not be, with the cause for the log.
    #[must_use]
    pub fn broken(cause: &dyn std::error::Error) -> Self {
        Self::internal().because(cause)
    }

    /// 500, without a word of what happened.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The service made a mistake",
        )
    }

    /// 503; the client should try again.
    #[must_use]
    pub fn unavailable(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .with(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.0.status
    }

    /// With the cause, for the log alone.
    #[must_use]
    pub fn because(mut self, cause: &dyn std::error::Error) -> Self {
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        self.0.cause = Some(text);
        self
    }

    /// What the log should say.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// Writes the problem into its response, where the request's id is known.
    pub fn write(&self, response: &mut Response, request_id: &str) {
        let body = Json {
            r#type: "about:blank",
            title: self.0.status.canonical_reason().unwrap_or("Error"),
            status: self.0.status.as_u16(),
            detail: &self.0.detail,
            request_id,
            errors: &self.0.errors,
        };
        let json = serde_json::to_vec(&body).expect("a problem is plain JSON");
        *response.body_mut() = Body::from(json);
        // That of the empty body before.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
    }
}

/// The body comes later, from [`Problem::write`].
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        if let Some((name, value)) = &self.0.header {
            response.headers_mut().insert(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<SessionError> for Problem {
    fn from(refusal: SessionError) -> Self {
        let detail = refusal.to_string();
        match refusal {
            SessionError::NotFound => Self::not_found(&detail),
            SessionError::AlreadyStarted => Self::new(StatusCode::CONFLICT, detail),
            SessionError::Inactive | SessionError::AlreadyEnded => Self::bad_request(detail),
            SessionError::Position => Self::invalid("position", detail),
            SessionError::SessionId => Self::invalid("session_id", detail),
            SessionError::OccurredAt => Self::invalid("occurred_at", detail),
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::Conflict => Self::new(
                StatusCode::CONFLICT,
                "The session is being changed by others; try again",
            ),
            CommandError::Repeated => Self::in_flight(),
            CommandError::Overloaded => {
                Self::unavailable("The service is overloaded; try again shortly")
            }
            CommandError::Unavailable(cause) => {
                Self::unavailable("The service cannot take commands now; try again shortly")
                    .because(cause.as_ref())
            }
            CommandError::Broken(error) => Self::broken(&error),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        Self::from(&error)
    }
}

impl From<&LogError> for Problem {
    fn from(error: &LogError) -> Self {
        match error {
            LogError::Unavailable(_) => {
                Self::unavailable("The service cannot answer now; try again shortly").because(error)
            }
            LogError::Undecodable { .. } | LogError::Broken(_) => Self::broken(error),
        }
    }
}

impl From<ActionError> for Problem {
    fn from(refusal: ActionError) -> Self {
        let detail = refusal.to_string();
        match refusal {
            ActionError::Unknown(_) => Self::not_found(&detail),
            ActionError::Discarded(_) | ActionError::Waiting { .. } => Self::conflict(detail),
            ActionError::Unavailable(error) => error.into(),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        LogError::from(error).into()
    }
}
