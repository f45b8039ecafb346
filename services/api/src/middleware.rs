//! A middleware trait like axum's `from_fn`, but generic over the inner service.
//! `from_fn` allocates and clones the inner service for every request in every
//! layer; this does not box it.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service};

/// A middleware and its state. Every request clones it, so clones must be cheap.
pub trait Middleware: Clone + Send + Sync + 'static {
    /// Handles a request. `next` is the inner service; the middleware need not
    /// call it.
    fn handle<S: InnerService>(
        self,
        request: Request,
        next: Next<S>,
    ) -> impl Future<Output = Response> + Send;
}

/// A service that a middleware can wrap: a route, including its other layers.
pub trait InnerService:
    Service<Request, Response: IntoResponse, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> InnerService for S
where
    S: Service<Request, Error = Infallible> + Clone + Send + 'static,
    S::Response: IntoResponse,
    S::Future: Send,
{
}

/// The inner service of a middleware. It is ready to be called.
pub struct Next<S>(S);

impl<S: InnerService> Next<S> {
    pub async fn run(mut self, request: Request) -> Response {
        match self.0.call(request).await {
            Ok(response) => response.into_response(),
            Err(never) => match never {},
        }
    }
}

#[derive(Clone)]
pub struct MiddlewareLayer<M>(pub M);

#[derive(Clone)]
pub struct MiddlewareService<M, S> {
    middleware: M,
    inner: S,
}

impl<M: Clone, S> Layer<S> for MiddlewareLayer<M> {
    type Service = MiddlewareService<M, S>;

    fn layer(&self, inner: S) -> MiddlewareService<M, S> {
        MiddlewareService {
            middleware: self.0.clone(),
            inner,
        }
    }
}

impl<M: Middleware, S: InnerService> Service<Request> for MiddlewareService<M, S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let middleware = self.middleware.clone();
        // Only `self.inner` has been polled ready. This call takes it, and leaves
        // its clone for the next call.
        let clone = self.inner.clone();
        let next = Next(mem::replace(&mut self.inner, clone));
        Box::pin(async move { Ok(middleware.handle(request, next).await) })
    }
}
