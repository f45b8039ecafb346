//! The settings of a Postgres server on which the log's durability depends, and
//! its load. For `doctor`; this module checks and changes nothing.

use sqlx::PgPool;

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "settings of a server")]
pub struct PostgresInfo {
    /// For people, such as `18.1`.
    pub version: String,
    /// For comparisons: 10,000 times the major version plus the minor version.
    pub version_num: i32,
    /// Whether a commit is on disk when it returns.
    pub fsync: bool,
    /// Whether a half-written page can be repaired after a crash.
    pub full_page_writes: bool,
    /// The durability that a commit waits for.
    pub synchronous_commit: String,
    /// Whether the server is a replica and accepts no writes.
    pub is_replica: bool,
    /// Whether new transactions are read-only. Always on a replica.
    pub is_read_only: bool,
    /// Open connections of clients.
    pub connections: i64,
    pub max_connections: i64,
    /// The age of the oldest open transaction, in seconds.
    pub longest_transaction: f64,
}

pub async fn query(pool: &PgPool) -> sqlx::Result<PostgresInfo> {
    sqlx::query_as!(
        PostgresInfo,
        r#"select current_setting('server_version') as "version!",
            current_setting('server_version_num')::int as "version_num!",
            current_setting('fsync')::bool as "fsync!",
            current_setting('full_page_writes')::bool as "full_page_writes!",
            current_setting('synchronous_commit') as "synchronous_commit!",
            pg_is_in_recovery() as "is_replica!",
            current_setting('transaction_read_only')::bool as "is_read_only!",
            count(*) as "connections!",
            current_setting('max_connections')::bigint as "max_connections!",
            coalesce(
                extract(epoch from max(clock_timestamp() - xact_start)), 0
            )::float8 as "longest_transaction!"
        from pg_stat_activity
        where backend_type = 'client backend'"#
    )
    .fetch_one(pool)
    .await
}
