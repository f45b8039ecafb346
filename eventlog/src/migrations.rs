//! The database's schema: migrations, and the monthly partitions that they
//! only begin.

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};
use thiserror::Error;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Months that have a partition before they come.
const MONTHS_AHEAD: i32 = 3;

/// The schema is not the one that this build works with.
#[derive(Debug, Error)]
pub enum MigrationStateError {
    /// `reading-sessions migrate` has not been run.
    #[error(
        "the database is at migration {actual}, this build needs {wanted}: run `reading-sessions migrate`"
    )]
    Older {
        /// The newest migration applied; 0 when there is none.
        actual: i64,
        /// The newest migration of this build.
        wanted: i64,
    },
    /// A newer build has migrated the database.
    #[error(
        "the database is at migration {actual}, this build only knows {wanted}: run a newer build"
    )]
    Newer {
        /// The newest migration applied.
        actual: i64,
        /// The newest migration of this build.
        wanted: i64,
    },
    /// Postgres did not answer.
    #[error("the schema cannot be read")]
    Unavailable(#[from] sqlx::Error),
}

/// Brings the schema up to date. Safe to run twice, and at the same time from
/// several processes. The connection must not look into the schema `read`
/// first: what has no schema by name belongs to `public`.
///
/// # Errors
/// Those of the migration that failed; it is rolled back.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATIONS.run(pool).await
}

/// The newest migration of this build.
pub fn wanted() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// Whether the schema is the one that this build works with.
///
/// # Errors
/// See [`MigrationStateError`].
pub async fn check(pool: &PgPool) -> Result<(), MigrationStateError> {
    let wanted = wanted();
    let applied: Option<bool> =
        sqlx::query_scalar("select to_regclass('public._sqlx_migrations') is not null")
            .fetch_one(pool)
            .await?;
    let actual: i64 = if applied == Some(true) {
        sqlx::query_scalar(
            "select coalesce(max(version), 0) from public._sqlx_migrations where success",
        )
        .fetch_one(pool)
        .await?
    } else {
        0
    };
    match actual.cmp(&wanted) {
        std::cmp::Ordering::Less => Err(MigrationStateError::Older { actual, wanted }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(MigrationStateError::Newer { actual, wanted }),
    }
}

/// Creates the partitions of the months to come; returns how many are new.
///
/// # Errors
/// Those of Postgres.
pub async fn create_partitions(pool: &PgPool) -> sqlx::Result<i32> {
    let mut created = 0;
    for table in ["events", "read.history"] {
        created += sqlx::query_scalar!(
            r#"select create_month_partitions($1::text::regclass, $2) as "created!""#,
            table,
            MONTHS_AHEAD
        )
        .fetch_one(pool)
        .await?;
    }
    Ok(created)
}

/// How many of the next months have partitions already.
///
/// # Errors
/// Those of Postgres.
pub async fn months_ahead(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from generate_series(1, $1) as ahead (months)
        cross join lateral to_char(
            date_trunc('month', now() at time zone 'UTC') + make_interval(months => months),
            'YYYY_MM'
        ) as month
        where to_regclass('public.events_' || month) is not null
            and to_regclass('read.history_' || month) is not null"#,
        MONTHS_AHEAD
    )
    .fetch_one(pool)
    .await
}
