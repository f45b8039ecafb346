//! The schema with the tables that a replay or a verification fills. They have the
//! structure of the live tables.

use eventlog::migrations;
use sqlx::{Connection, Executor, PgConnection};

use crate::TableProjection;
use crate::zones::Zones;

/// The name of the schema in which a projection is replayed.
#[must_use]
pub fn shadow_schema(projection: &str) -> String {
    format!("replay_{projection}")
}

/// Whether there is a shadow that this process can resume.
pub(super) async fn is_current(
    connection: &mut PgConnection,
    schema: &str,
    zones: &Zones,
) -> sqlx::Result<bool> {
    let created_by: Option<String> = sqlx::query_scalar!(
        "select obj_description(to_regnamespace($1)::oid, 'pg_namespace')",
        schema
    )
    .fetch_one(connection)
    .await?;
    Ok(created_by == Some(rules(zones)))
}

/// Identifies the code and the time zone rules that fill a shadow. A process with others
/// may fold events differently, so it must not resume the shadow.
fn rules(zones: &Zones) -> String {
    format!(
        "{} {} {}",
        env!("CARGO_PKG_VERSION"),
        migrations::required(),
        zones.version()
    )
}

/// Creates an empty shadow of a projection, with a checkpoint at the start of the log.
/// Copies the discarded dead letters, so that a replay skips those events too. `resumable`
/// contains the rules of a shadow that a later replay may use.
pub(crate) async fn create<P: TableProjection>(
    connection: &mut PgConnection,
    schema: &str,
    resumable: Option<&Zones>,
) -> sqlx::Result<()> {
    let tables: Vec<String> = P::TABLES
        .iter()
        .chain(&["checkpoints", "dead_letters"])
        .map(|table| (*table).to_owned())
        .collect();
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        "select create_shadow($1, $2, $3)",
        schema,
        &tables,
        resumable.map(rules)
    )
    .execute(&mut *transaction)
    .await?;
    let discarded = format!(
        "insert into {schema}.dead_letters
        select * from read.dead_letters where projection = '{}' and state = 'discarded'",
        P::NAME
    );
    transaction.execute(discarded.as_str()).await?;
    transaction.commit().await
}

/// Drops a shadow, if it exists.
pub(crate) async fn drop_shadow(connection: &mut PgConnection, schema: &str) -> sqlx::Result<()> {
    sqlx::query!("select drop_shadow($1)", schema)
        .execute(connection)
        .await?;
    Ok(())
}
