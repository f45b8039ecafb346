//! Cross-origin requests of web pages (CORS).
//!
//! By default, pages of every origin may call the API. Browsers do not add the
//! `Authorization` header by themselves, so a page can do no more than its token
//! allows.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use futures::future::Either;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, Any, Cors, CorsLayer};

use crate::{idempotency, rate_limit, request_log, response};

/// How long a browser may cache the response to a preflight.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

/// Applies CORS to the requests of browsers only. [`CorsLayer`] takes every OPTIONS
/// request for a preflight and adds CORS headers to every response, so all other
/// requests bypass it.
#[derive(Clone)]
pub struct CorsForBrowsers(Arc<CorsLayer>);

#[derive(Clone)]
pub struct BrowserCorsService<S> {
    layer: Arc<CorsLayer>,
    inner: S,
}

impl CorsForBrowsers {
    /// Allows pages of these origins; an empty slice allows every origin.
    #[must_use]
    pub fn new(origins: &[HeaderValue]) -> Self {
        Self(Arc::new(layer(origins)))
    }
}

impl<S> Layer<S> for CorsForBrowsers {
    type Service = BrowserCorsService<S>;

    fn layer(&self, inner: S) -> BrowserCorsService<S> {
        BrowserCorsService {
            layer: Arc::clone(&self.0),
            inner,
        }
    }
}

impl<S, Body, ResponseBody> Service<Request<Body>> for BrowserCorsService<S>
where
    S: Service<Request<Body>, Response = Response<ResponseBody>> + Clone,
    ResponseBody: Default,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = Either<S::Future, <Cors<S> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !is_browser_request(&request) {
            return Either::Left(self.inner.call(request));
        }
        // Only `self.inner` has been polled ready. This call takes it, and leaves
        // its clone for the next call.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        Either::Right(self.layer.layer(ready).call(request))
    }
}

/// Whether a browser sent the request for a script of a web page, or as the
/// preflight of such a request (Fetch Standard, section 3.2).
fn is_browser_request<Body>(request: &Request<Body>) -> bool {
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
            Method::PATCH,
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
        .max_age(PREFLIGHT_MAX_AGE)
}
