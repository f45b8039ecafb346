//! How far projections in Postgres have read. They move their checkpoint in
//! the statement that writes their rows; here it is only read, and begun.

use sqlx::PgPool;

/// The checkpoint of a projection; 0 when it has not begun.
///
/// # Errors
/// Those of Postgres.
pub async fn read(pool: &PgPool, projection: &str) -> sqlx::Result<i64> {
    let position = sqlx::query_scalar!(
        "select global_position from checkpoints where projection = $1",
        projection
    )
    .fetch_optional(pool)
    .await?;
    Ok(position.unwrap_or(0))
}

/// As [`read`], for the projection itself: there is a row to move afterwards.
///
/// # Errors
/// Those of Postgres.
pub async fn begin(pool: &PgPool, projection: &str) -> sqlx::Result<i64> {
    sqlx::query!(
        "insert into checkpoints (projection, global_position) values ($1, 0)
        on conflict do nothing",
        projection
    )
    .execute(pool)
    .await?;
    read(pool, projection).await
}
