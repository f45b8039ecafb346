//! Path parameters.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use domain::{ReaderId, SessionId};
use jobs::Job;
use projections::operations::ProjectionName;
use uuid::Uuid;

use crate::problem::{Problem, ProblemCode};

/// The session id in the path.
#[derive(Debug)]
pub struct SessionPath(pub SessionId);

impl<S: Send + Sync> FromRequestParts<S> for SessionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let uuid = uuid(parts, state).await?;
        Ok(Self(SessionId::from_uuid(uuid)))
    }
}

/// The reader id in the path of an admin call.
#[derive(Debug)]
pub struct ReaderPath(pub ReaderId);

impl<S: Send + Sync> FromRequestParts<S> for ReaderPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let uuid = uuid(parts, state).await?;
        Ok(Self(uuid.into()))
    }
}

async fn uuid<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Uuid, Problem> {
    let path = Path::<String>::from_request_parts(parts, state).await;
    path.ok()
        .and_then(|path| Uuid::try_parse(&path).ok())
        .ok_or_else(|| Problem::invalid("id", "not a UUID"))
}

/// The name of a projection or a job in the path.
#[derive(Clone, Copy, Debug)]
pub struct PathName<T>(pub T);

/// A type with a fixed list of names.
pub trait Named: FromStr {
    /// The noun in the detail of the problem.
    const KIND: &'static str;

    /// The code of the problem if no value has the name in the path.
    const NOT_FOUND: ProblemCode;

    /// The names, separated by commas.
    fn names() -> String;
}

impl Named for ProjectionName {
    const KIND: &'static str = "projection";
    const NOT_FOUND: ProblemCode = ProblemCode::ProjectionNotFound;

    fn names() -> String {
        Self::names()
    }
}

impl Named for Job {
    const KIND: &'static str = "job";
    const NOT_FOUND: ProblemCode = ProblemCode::JobNotFound;

    fn names() -> String {
        Self::names()
    }
}

impl<S: Send + Sync, T: Named> FromRequestParts<S> for PathName<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let name = path.map(|path| path.0).unwrap_or_default();
        name.parse().map(Self).map_err(|_| {
            let detail = format!("Unknown {}; the names are {}", T::KIND, T::names());
            Problem::new(T::NOT_FOUND, detail)
        })
    }
}
