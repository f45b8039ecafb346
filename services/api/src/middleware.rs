//! What stands around handlers, like axum's `from_fn`, but that knows what is
//! inside of it by its type: axum boxes and copies that for every request, in
//! every layer.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use tower::{Layer, Service};

/// A middleware and its state, which is cheap to clone.
pub trait Middleware: Clone + Send + Sync + 'static {
    /// The answer to a request; what is inside may be asked for it.
    fn answer<S: InnerService>(
        self,
        request: Request,
        next: Next<S>,
    ) -> impl Future<Output = Response> + Send;
}

/// What a middleware may stand around: a route, and all that is around it already.
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

/// What is inside.
pub struct Next<S>(S);

impl<S: InnerService> Next<S> {
    /// Asks what is inside, which is ready.
    pub async fn run(mut self, request: Request) -> Response {
        match self.0.call(request).await {
            Ok(answer) => answer.into_response(),
            Err(never) => match never {},
        }
    }
}

/// Puts a middleware around a route.
#[derive(Clone)]
pub struct MiddlewareLayer<M>(pub M);

/// A route with a middleware around it.
#[derive(Clone)]
pub struct Surrounded<M, S> {
    middleware: M,
    inside: S,
}

impl<M: Clone, S> Layer<S> for MiddlewareLayer<M> {
    type Service = Surrounded<M, S>;

    fn layer(&self, inside: S) -> Surrounded<M, S> {
        Surrounded {
            middleware: self.0.clone(),
            inside,
        }
    }
}

impl<M: Middleware, S: InnerService> Service<Request> for Surrounded<M, S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inside.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let middleware = self.middleware.clone();
        // The one that is ready is asked, its clone is asked next time.
        let clone = self.inside.clone();
        let next = Next(mem::replace(&mut self.inside, clone));
        Box::pin(async move { Ok(middleware.answer(request, next).await) })
    }
}
