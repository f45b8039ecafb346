//! The database schema: applies migrations, checks the schema's version and creates
//! monthly partitions ahead of time.
//!
//! Only `migrate` and the jobs change the schema. All other processes check it at
//! start.

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};
use thiserror::Error;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// The number of future months with a partition.
const MONTHS_AHEAD: i32 = 3;

/// The schema does not fit this build.
#[derive(Debug, Error)]
pub enum MigrationStateError {
    #[error(
        "the database is at migration {actual}, this build requires {required}: run `reading-sessions migrate`"
    )]
    Older {
        /// The newest applied migration; 0 if there is none.
        actual: i64,
        /// The newest migration of this build.
        required: i64,
    },
    /// A newer build has migrated the database.
    #[error(
        "the database is at migration {actual}, this build supports {required}: run a newer build"
    )]
    Newer {
        /// The newest applied migration.
        actual: i64,
        /// The newest migration of this build.
        required: i64,
    },
    #[error("the version of the database schema cannot be read")]
    Unavailable(#[from] sqlx::Error),
}

/// Applies all missing migrations. Safe to repeat, and to run in several processes
/// at the same time. A failed migration is rolled back.
///
/// The `search_path` of the connection must begin with `public`: migrations create
/// their unqualified tables there.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATIONS.run(pool).await
}

/// The newest migration of this build.
#[must_use]
pub fn required() -> i64 {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// Checks that the schema fits this build.
pub async fn check(pool: &PgPool) -> Result<(), MigrationStateError> {
    let required = required();
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
    match actual.cmp(&required) {
        std::cmp::Ordering::Less => Err(MigrationStateError::Older { actual, required }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(MigrationStateError::Newer { actual, required }),
    }
}

/// Creates missing partitions of future months and returns how many.
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

/// The number of future months that have all their partitions.
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
