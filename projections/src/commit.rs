//! The commit of a batch to Postgres.
//!
//! One statement moves the checkpoint and writes the rows. A batch that also
//! erases rows or changes dead letters needs a transaction.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::CommitError;
use crate::dead_letters::DeadLetterChanges;

/// A commit in progress. The caller runs its statement on
/// [`TableCommit::connection`], and then calls [`TableCommit::finish`].
pub(crate) struct TableCommit<'a> {
    projection: &'static str,
    dead_letters: &'a DeadLetterChanges,
    scope: Scope,
}

enum Scope {
    /// The statement is a transaction of its own.
    Statement(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl<'a> TableCommit<'a> {
    /// Begins a commit, and runs `erase` if the batch erases rows.
    pub(crate) async fn begin(
        pool: &PgPool,
        projection: &'static str,
        dead_letters: &'a DeadLetterChanges,
        erase: Option<Query<'_, Postgres, PgArguments>>,
    ) -> sqlx::Result<Self> {
        let scope = if dead_letters.is_empty() && erase.is_none() {
            Scope::Statement(pool.acquire().await?)
        } else {
            let mut transaction = pool.begin().await?;
            if let Some(erase) = erase {
                erase.execute(&mut *transaction).await?;
            }
            Scope::Transaction(transaction)
        };
        Ok(Self {
            projection,
            dead_letters,
            scope,
        })
    }

    /// The connection for the statement that moves the checkpoint.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match &mut self.scope {
            Scope::Statement(connection) => connection,
            Scope::Transaction(transaction) => transaction,
        }
    }

    /// Ends the commit. `moved` is whether the statement moved the checkpoint;
    /// otherwise nothing is written.
    pub(crate) async fn finish(self, moved: bool) -> Result<(), CommitError> {
        if !moved {
            return Err(CommitError::CheckpointMoved);
        }
        if let Scope::Transaction(mut transaction) = self.scope {
            self.dead_letters
                .write(&mut transaction, self.projection)
                .await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}
