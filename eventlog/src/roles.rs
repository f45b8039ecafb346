//! The roles of Postgres with which processes and exporters connect. None of them owns
//! anything.
//!
//! [`crate::migrations::migrate`] creates them. `migrations/grants.sql` lists what each of
//! them may do.

use postgres_protocol::password::scram_sha_256;
use sqlx::{Executor, PgConnection, PgExecutor};

/// The role that owns the schema. It cannot log in.
pub(crate) const OWNER: &str = "reading_owner";

/// A role that processes, operators and exporters log in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseRole {
    Api,
    Relay,
    Projections,
    /// Also serves the admin API, so it may do what [`DatabaseRole::Operator`] may do.
    Jobs,
    Operator,
    /// For one process with all roles: it may do what the others may do together.
    Service,
    /// For an exporter of metrics: it reads the statistics of the server, and no table.
    Monitor,
}

impl DatabaseRole {
    pub const ALL: [Self; 7] = [
        Self::Api,
        Self::Relay,
        Self::Projections,
        Self::Jobs,
        Self::Operator,
        Self::Service,
        Self::Monitor,
    ];

    /// The name of the role in Postgres.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "reading_api",
            Self::Relay => "reading_relay",
            Self::Projections => "reading_projections",
            Self::Jobs => "reading_jobs",
            Self::Operator => "reading_operator",
            Self::Service => "reading_service",
            Self::Monitor => "reading_monitor",
        }
    }
}

/// Lets a role log in with a password.
///
/// # Errors
/// When the caller may not change the role, for example because [`crate::migrations::migrate`]
/// could not create it.
pub async fn set_password(
    database: impl PgExecutor<'_>,
    role: DatabaseRole,
    password: &str,
) -> sqlx::Result<()> {
    // Postgres gets only the hash, so the password appears in none of its logs. The hash
    // contains no quote.
    let hash = scram_sha_256(password.as_bytes());
    let statement = format!("alter role {} login password '{hash}'", role.name());
    database.execute(statement.as_str()).await?;
    Ok(())
}

/// The roles among `needed` whose rights the caller lacks. The owner of the log has all
/// rights. Empty if `migrate` was not permitted to create the roles.
pub async fn missing(
    database: impl PgExecutor<'_>,
    needed: &[DatabaseRole],
) -> sqlx::Result<Vec<String>> {
    let names: Vec<String> = needed.iter().map(|role| role.name().to_owned()).collect();
    sqlx::query_scalar!(
        r#"select needed.role as "role!"
        from unnest($1::text[]) as needed (role)
        join pg_roles on rolname = needed.role
        join pg_class on pg_class.oid = 'public.events'::regclass
        where not pg_has_role(relowner, 'usage') and not pg_has_role(pg_roles.oid, 'usage')"#,
        &names
    )
    .fetch_all(database)
    .await
}

/// A role of a running process that may do more than it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    pub role: String,
    /// A phrase that follows the name of the role, for example `is a superuser`.
    pub rights: String,
}

/// The roles that have more rights than `migrations/grants.sql` gives to any role: that of
/// the caller, and with `of_all_processes` those of all open connections of the service.
pub async fn excessive(
    database: impl PgExecutor<'_>,
    of_all_processes: bool,
) -> sqlx::Result<Vec<Excess>> {
    sqlx::query_file_as!(Excess, "src/roles/excessive.sql", of_all_processes)
        .fetch_all(database)
        .await
}

/// Creates the roles, and makes [`OWNER`] the owner of what exists.
pub(crate) async fn create(connection: &mut PgConnection) -> sqlx::Result<()> {
    connection
        .execute(include_str!("../../migrations/roles.sql"))
        .await?;
    Ok(())
}

/// Gives each role exactly its rights. The caller acts as [`OWNER`].
pub(crate) async fn grant(connection: &mut PgConnection) -> sqlx::Result<()> {
    // Several statements without parameters are one transaction.
    connection
        .execute(include_str!("../../migrations/grants.sql"))
        .await?;
    Ok(())
}
