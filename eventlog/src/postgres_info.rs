//! What Postgres says of itself, as far as the log's promises rest on it.

use sqlx::PgPool;

/// How a server is set up, and how busy it is.
#[derive(Clone, Debug)]
pub struct PostgresInfo {
    /// As it is written, `18.1`.
    pub version: String,
    /// As it is compared: ten thousand times the major version, and the minor.
    pub version_num: i32,
    /// Whether what is committed is on disk.
    pub fsync: bool,
    /// Whether a page that was written half is mended.
    pub full_page_writes: bool,
    /// What a commit waits for.
    pub synchronous_commit: String,
    /// Whether it is a replica, and takes no writes.
    pub is_replica: bool,
    /// Connections of clients now.
    pub connections: i64,
    /// Connections at most.
    pub max_connections: i64,
    /// How long the longest transaction has been open, in seconds.
    pub longest_transaction: f64,
}

/// Asks it.
///
/// # Errors
/// Those of Postgres.
pub async fn query(pool: &PgPool) -> sqlx::Result<PostgresInfo> {
    sqlx::query_as!(
        PostgresInfo,
        r#"select current_setting('server_version') as "version!",
            current_setting('server_version_num')::int as "version_num!",
            current_setting('fsync')::bool as "fsync!",
            current_setting('full_page_writes')::bool as "full_page_writes!",
            current_setting('synchronous_commit') as "synchronous_commit!",
            pg_is_in_recovery() as "is_replica!",
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
