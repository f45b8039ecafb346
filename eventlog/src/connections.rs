//! The open connections of all processes of the service to Postgres, for operators.
//!
//! A role without `pg_read_all_stats` sees only its own connections.

use sqlx::PgExecutor;

/// Connections with the same address, role and pool.
#[derive(Clone, Debug)]
pub struct ConnectionGroup {
    /// The address of the client; `None` for a socket.
    pub address: Option<String>,
    pub role: String,
    pub pool: String,
    pub connections: i64,
    /// Connections that run a statement.
    pub active: i64,
    /// The age of the oldest open transaction, in seconds; 0 if there is none.
    pub longest_transaction: f64,
}

pub async fn list(database: impl PgExecutor<'_>) -> sqlx::Result<Vec<ConnectionGroup>> {
    sqlx::query_file_as!(ConnectionGroup, "src/connections/list.sql")
        .fetch_all(database)
        .await
}
