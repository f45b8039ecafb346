//! The database schema: applies migrations, gives each role its rights, checks the
//! schema's version and creates monthly partitions ahead of time.
//!
//! Only `migrate` and the jobs change the schema. All other processes check it at
//! start.

use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection, PgExecutor, PgPool};
use thiserror::Error;

use crate::roles;
use crate::sqlstate::SqlState;

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

/// The advisory lock of a process that migrates.
const LOCK: i64 = 7_340_012;

/// How long a process waits for another one that migrates.
const LOCK_TIMEOUT: &str = "60s";

#[derive(Debug, Error)]
pub enum MigrateError {
    #[error("the roles of Postgres cannot be created")]
    Roles(#[source] sqlx::Error),
    /// The connection's role may neither create roles nor change the schema.
    #[error(
        "role {0} may not change the schema; set DATABASE_URL to a superuser, or to the owner of \
         the database"
    )]
    NotPermitted(String),
    #[error("applying the migrations failed")]
    Migrations(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Whether processes can connect with roles that do not own the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleSeparation {
    Separate,
    /// The caller may not create roles. It owns what the migrations create.
    NotPermitted,
}

/// Creates the roles, applies all missing migrations, creates partitions and gives each
/// role its rights. Safe to repeat, and to run in several processes at the same time. A
/// failed migration is rolled back.
///
/// The `search_path` of the connection must begin with `public`: migrations create
/// their unqualified tables there.
pub async fn migrate(pool: &PgPool) -> Result<RoleSeparation, MigrateError> {
    // Closing the connection releases the lock and leaves the role of the owner.
    let mut connection = pool.acquire().await?.detach();
    let migrated = migrate_locked(&mut connection).await;
    let _ = connection.close().await;
    migrated
}

async fn migrate_locked(connection: &mut PgConnection) -> Result<RoleSeparation, MigrateError> {
    let timeout: String = sqlx::query_scalar("select current_setting('lock_timeout')")
        .fetch_one(&mut *connection)
        .await?;
    let lock = format!(
        "set lock_timeout = '{LOCK_TIMEOUT}'; select pg_advisory_lock({LOCK});
        set lock_timeout = '{timeout}'"
    );
    connection.execute(lock.as_str()).await?;
    let separation = match roles::create(connection).await {
        Ok(()) => RoleSeparation::Separate,
        Err(error) if SqlState::from_error(&error) == Some(SqlState::NotPermitted) => {
            check_may_create_tables(connection).await?;
            RoleSeparation::NotPermitted
        }
        Err(error) => return Err(MigrateError::Roles(error)),
    };
    if separation == RoleSeparation::Separate {
        let owner = format!("set role {}", roles::OWNER);
        connection.execute(owner.as_str()).await?;
    }
    MIGRATIONS.run(&mut *connection).await?;
    create_partitions(&mut *connection).await?;
    if separation == RoleSeparation::Separate {
        roles::grant(connection).await?;
    }
    Ok(separation)
}

async fn check_may_create_tables(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let (role, may_create): (String, bool) =
        sqlx::query_as("select current_user::text, has_schema_privilege('public', 'create')")
            .fetch_one(connection)
            .await?;
    if may_create {
        Ok(())
    } else {
        Err(MigrateError::NotPermitted(role))
    }
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
pub async fn create_partitions(database: impl PgExecutor<'_>) -> sqlx::Result<i32> {
    sqlx::query_scalar!(
        r#"select sum(create_month_partitions(parent::regclass, $1))::int as "created!"
        from unnest(array['public.events', 'read.history']) as parent"#,
        MONTHS_AHEAD
    )
    .fetch_one(database)
    .await
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
