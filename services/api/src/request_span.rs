//! The span of a request, if its trace is sampled. Its attributes contain no path and no
//! query, because these identify sessions and readers.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use eventlog::clock;
use eventlog::trace::{Span, SpanKind, TraceParent, Traces};

/// The name of all unusual methods, as the semantic conventions require.
const OTHER_METHOD: &str = "_OTHER";

/// Starts the span, and adds it to the extensions of the request as the parent of others.
/// `route` is the pattern of the path, such as `/{id}`; `None` if there is no such route.
pub(crate) fn start(
    traces: &Traces,
    request: &mut Request,
    route: Option<&str>,
    request_id: &HeaderValue,
) -> Option<Span> {
    if !traces.is_on() {
        return None;
    }
    let parent = traceparent(request.headers());
    let mut span = traces.start(parent, SpanKind::Server, "HTTP", clock::now())?;
    let method = method(request.method());
    if method != OTHER_METHOD {
        span.set_name(match route {
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        });
    }
    span.set("http.request.method", method);
    if let Some(route) = route {
        span.set("http.route", route.to_owned());
    }
    if let Ok(request_id) = request_id.to_str() {
        span.set("reading_sessions.request_id", request_id.to_owned());
    }
    request.extensions_mut().insert(span.as_parent());
    Some(span)
}

/// Ends the span once the headers of the response are ready.
pub(crate) fn end(span: Option<Span>, status: StatusCode) {
    if let Some(mut span) = span {
        span.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.fail(status.as_str().to_owned());
        }
        span.end(clock::now());
    }
}

/// The trace context of the client. An invalid one is ignored, as the W3C specification
/// requires.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(headers.get("traceparent")?.to_str().ok()?)
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER_METHOD,
    }
}
