//! The pool that requests take connections from. sqlx does not tell how long
//! anyone waited for one; this one does. It counts nothing itself, and knows
//! nobody who does.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Execute, Executor, PgPool, Postgres};

/// Is told how long each wait for a connection took, and whether it was in vain.
type Waited = dyn Fn(Duration, bool) + Send + Sync;

/// A pool; cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: PgPool,
    waited: Arc<Waited>,
}

impl Pool {
    /// A pool whose waits somebody wants to know of: how long each was, and
    /// whether it was in vain.
    #[must_use]
    pub fn new(inner: PgPool, waited: impl Fn(Duration, bool) + Send + Sync + 'static) -> Self {
        Self {
            inner,
            waited: Arc::new(waited),
        }
    }

    /// A connection, as soon as there is one.
    ///
    /// # Errors
    /// When there is none in time, or Postgres lets nobody in.
    pub async fn acquire(&self) -> sqlx::Result<PoolConnection<Postgres>> {
        let started = Instant::now();
        let connection = self.inner.acquire().await;
        (self.waited)(started.elapsed(), connection.is_err());
        connection
    }

    /// The pool itself, for what takes no other; its waits are not told.
    #[must_use]
    pub fn inner(&self) -> &PgPool {
        &self.inner
    }
}

/// Of no interest to anyone.
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

/// As a pool of sqlx does it: a connection for each statement. An answer is
/// read to its end before it is handed on; ours are all short.
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
        let answer = async move {
            let mut connection = self.acquire().await?;
            let answer: Vec<_> = connection.fetch_many(query).try_collect().await?;
            Ok::<_, sqlx::Error>(stream::iter(answer).map(Ok))
        };
        stream::once(answer).try_flatten().boxed()
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
