//! Which web pages may call. Tokens come in a header that no browser adds by
//! itself, so any page may by default: it has no more power than its token.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Request, Response, header};
use futures::future::Either;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, Any, Cors, CorsLayer};

use super::{answer, edge, idempotency, rate_limit};

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_hours(2);

/// Lets web pages call. [`CorsLayer`] takes every OPTIONS request for a browser's
/// preflight; those that are none go past it.
#[derive(Clone)]
pub struct Pages(CorsLayer);

/// What [`Pages`] makes of a service.
#[derive(Clone)]
pub struct PagesService<S>(Cors<S>);

impl Pages {
    /// Lets pages of these origins call; without any, all of them.
    #[must_use]
    pub fn of(origins: &[HeaderValue]) -> Self {
        Self(layer(origins))
    }
}

impl<S> Layer<S> for Pages {
    type Service = PagesService<S>;

    fn layer(&self, inner: S) -> PagesService<S> {
        PagesService(self.0.layer(inner))
    }
}

impl<S, Body, Answer> Service<Request<Body>> for PagesService<S>
where
    S: Service<Request<Body>, Response = Response<Answer>>,
    Answer: Default,
{
    type Response = Response<Answer>;
    type Error = S::Error;
    type Future = Either<S::Future, <Cors<S> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_preflight = request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if request.method() == Method::OPTIONS && !is_preflight {
            Either::Left(self.0.get_mut().call(request))
        } else {
            Either::Right(self.0.call(request))
        }
    }
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
            edge::REQUEST_ID,
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([
            header::CONTENT_DISPOSITION,
            header::ETAG,
            header::LINK,
            header::RETRY_AFTER,
            header::WARNING,
            answer::GLOBAL_POSITION,
            idempotency::REPLAYED,
            edge::REQUEST_ID,
            rate_limit::LIMIT,
            rate_limit::REMAINING,
            rate_limit::RESET,
        ])
        .max_age(MAX_AGE)
}
