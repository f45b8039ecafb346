//! A log that loses its last events, as in a failover to a server that lacks them.

use sqlx::{Executor, PgPool};

/// The tables that change in the transaction of an append, besides `events`.
const TABLES: [&str; 3] = ["claims", "newest_observations", "idempotency_keys"];

/// A state of the log to which it can be reset. Resetting needs a superuser, because the
/// log is append-only for everybody else.
pub struct SavedLog {
    head: i64,
}

impl SavedLog {
    /// Saves the current state of a log that does not change at the moment.
    pub async fn save(pool: &PgPool) -> Self {
        let mut transaction = pool.begin().await.unwrap();
        let head = eventlog::read::head(&mut *transaction).await.unwrap();
        transaction.execute("create schema saved").await.unwrap();
        for table in TABLES {
            let copy = format!("create table saved.{table} as select * from public.{table}");
            transaction.execute(copy.as_str()).await.unwrap();
        }
        transaction.commit().await.unwrap();
        Self { head }
    }

    /// Removes everything that was appended since.
    pub async fn reset(&self, pool: &PgPool) {
        let mut transaction = pool.begin().await.unwrap();
        transaction
            .execute("set local session_replication_role = replica")
            .await
            .unwrap();
        let deleted = sqlx::query("delete from events where global_position > $1")
            .bind(self.head)
            .execute(&mut *transaction)
            .await
            .unwrap();
        assert!(deleted.rows_affected() > 0, "the log loses something");
        for table in TABLES {
            let copy = format!(
                "delete from public.{table};
                insert into public.{table} select * from saved.{table}"
            );
            transaction.execute(copy.as_str()).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}
