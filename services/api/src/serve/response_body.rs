//! Response bodies that mark their request as in progress until the connection has
//! written them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};

use super::timeouts::RequestGuard;

/// A response body that keeps the guard of its request.
///
/// HTTP/2 takes a body's data before the client permits it to send them, and drops the
/// body. The data therefore keep the guard too.
pub struct GuardedBody {
    body: Body,
    guard: Arc<RequestGuard>,
}

struct GuardedData {
    data: Bytes,
    _guard: Arc<RequestGuard>,
}

impl AsRef<[u8]> for GuardedData {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl GuardedBody {
    pub fn new(body: Body, guard: RequestGuard) -> Self {
        Self {
            body,
            guard: Arc::new(guard),
        }
    }
}

impl hyper::body::Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_ok(|frame| {
            frame.map_data(|data| {
                Bytes::from_owner(GuardedData {
                    data,
                    _guard: Arc::clone(&self.guard),
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
