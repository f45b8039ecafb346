//! Which web pages may call. Tokens come in a header that no browser adds by
//! itself, so any page may by default: it has no more power than its token.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use futures::future::Either;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, Any, Cors, CorsLayer};

use crate::{idempotency, rate_limit, request_log, response};

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_hours(2);

/// Lets web pages call. [`CorsLayer`] takes every OPTIONS request for a browser's
/// preflight, and writes for everyone what only a browser reads: what is of no page
/// goes past it.
#[derive(Clone)]
pub struct CorsForBrowsers(Arc<CorsLayer>);

/// What [`CorsForBrowsers`] makes of a service.
#[derive(Clone)]
pub struct PagesService<S> {
    layer: Arc<CorsLayer>,
    inside: S,
}

impl CorsForBrowsers {
    /// Lets pages of these origins call; without any, all of them.
    #[must_use]
    pub fn of(origins: &[HeaderValue]) -> Self {
        Self(Arc::new(layer(origins)))
    }
}

impl<S> Layer<S> for CorsForBrowsers {
    type Service = PagesService<S>;

    fn layer(&self, inside: S) -> PagesService<S> {
        PagesService {
            layer: Arc::clone(&self.0),
            inside,
        }
    }
}

impl<S, Body, Answer> Service<Request<Body>> for PagesService<S>
where
    S: Service<Request<Body>, Response = Response<Answer>> + Clone,
    Answer: Default,
{
    type Response = Response<Answer>;
    type Error = S::Error;
    type Future = Either<S::Future, <Cors<S> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inside.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !is_of_a_page(&request) {
            return Either::Left(self.inside.call(request));
        }
        // The one that is ready is asked, its clone is asked next time.
        let clone = self.inside.clone();
        let ready = mem::replace(&mut self.inside, clone);
        Either::Right(self.layer.layer(ready).call(request))
    }
}

/// Whether a browser asks for a web page's script (Fetch, section 3.2), or before
/// it does.
fn is_of_a_page<Body>(request: &Request<Body>) -> bool {
    let headers = request.headers();
    headers.contains_key(header::ORIGIN)
        && (request.method() != Method::OPTIONS
            || headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD))
}

fn layer(origins: &[HeaderValue]) -> CorsLayer {
    let origins = if origins.is_empty() {
        AllowOrigin::from(Any)
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            idempotency::KEY,
            request_log::REQUEST_ID,
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([
            header::CONTENT_DISPOSITION,
            header::ETAG,
            header::LINK,
            header::RETRY_AFTER,
            header::WARNING,
            response::GLOBAL_POSITION,
            idempotency::REPLAYED,
            request_log::REQUEST_ID,
            rate_limit::LIMIT,
            rate_limit::REMAINING,
            rate_limit::RESET,
        ])
        .max_age(MAX_AGE)
}
