//! The tables that a replay or a comparison fills: like the live ones, in a
//! schema of their own.

use sqlx::{Connection, Executor, PgConnection};

use eventlog::migrations;

use crate::TableProjection;

/// The schema that a projection is replayed in.
#[must_use]
pub fn schema_of(projection: &str) -> String {
    format!("replay_{projection}")
}

/// Whether a shadow of this release is there to go on with.
pub(super) async fn is_current(connection: &mut PgConnection, schema: &str) -> sqlx::Result<bool> {
    let made_by: Option<String> = sqlx::query_scalar!(
        "select obj_description(to_regnamespace($1)::oid, 'pg_namespace')",
        schema
    )
    .fetch_one(connection)
    .await?;
    Ok(made_by == Some(maker()))
}

/// What makes a shadow: another release may fold events in another way.
fn maker() -> String {
    format!("{} {}", env!("CARGO_PKG_VERSION"), migrations::wanted())
}

/// Makes an empty shadow of a projection, at the beginning of the log. Events
/// that operators have discarded stay so.
pub(crate) async fn create<P: TableProjection>(
    connection: &mut PgConnection,
    schema: &str,
    kept: bool,
) -> sqlx::Result<()> {
    let tables: Vec<String> = P::TABLES
        .iter()
        .chain(&["checkpoints", "dead_letters"])
        .map(|table| (*table).to_owned())
        .collect();
    let mut transaction = connection.begin().await?;
    let drop = format!("drop schema if exists {schema} cascade");
    transaction.execute(drop.as_str()).await?;
    sqlx::query!("select create_shadow($1, $2)", schema, &tables)
        .execute(&mut *transaction)
        .await?;
    let letters = format!(
        "insert into {schema}.dead_letters
        select * from read.dead_letters where projection = '{}' and state = 'discarded'",
        P::NAME
    );
    transaction.execute(letters.as_str()).await?;
    if kept {
        let made_by = format!("comment on schema {schema} is '{}'", maker());
        transaction.execute(made_by.as_str()).await?;
    }
    transaction.commit().await
}
