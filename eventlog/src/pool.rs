//! A connection pool that reports how long each caller waited for a connection:
//! sqlx does not measure this. The pool keeps no metrics itself.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, PgPool, Postgres};

/// Receives the duration of each wait for a connection, and whether it failed.
type OnWait = dyn Fn(Duration, bool) + Send + Sync;

/// A pool; cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: PgPool,
    on_wait: Arc<OnWait>,
}

impl Pool {
    /// Calls `on_wait` after each wait for a connection, with its duration and
    /// whether it failed.
    #[must_use]
    pub fn new(inner: PgPool, on_wait: impl Fn(Duration, bool) + Send + Sync + 'static) -> Self {
        Self {
            inner,
            on_wait: Arc::new(on_wait),
        }
    }

    /// Waits for a connection, at most as long as the pool's acquire timeout.
    pub async fn acquire(&self) -> sqlx::Result<PoolConnection<Postgres>> {
        let started = Instant::now();
        let connection = self.inner.acquire().await;
        (self.on_wait)(started.elapsed(), connection.is_err());
        connection
    }

    /// The sqlx pool, for callers that need its type. Its waits are not reported.
    #[must_use]
    pub fn inner(&self) -> &PgPool {
        &self.inner
    }
}

/// A pool whose waits are not reported.
impl From<PgPool> for Pool {
    fn from(inner: PgPool) -> Self {
        Self::new(inner, |_, _| {})
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Takes a connection for each statement, as sqlx's pool does. Unlike that pool it
/// reads all rows before it returns the first one; our results are short.
impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let results = async move {
            let mut connection = self.acquire().await?;
            let results: Vec<_> = connection.fetch_many(query).try_collect().await?;
            Ok::<_, sqlx::Error>(stream::iter(results).map(Ok))
        };
        stream::once(results).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { self.acquire().await?.fetch_optional(query).await })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement<'q>>>
    where
        'p: 'e,
    {
        Box::pin(async move { self.acquire().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'p: 'e,
    {
        Box::pin(async move { self.acquire().await?.describe(sql).await })
    }
}
