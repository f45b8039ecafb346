//! Who has a session open. A claim changes only in the transaction of the
//! events that open or close the session (see [`crate::append`]); here it is
//! only read.

use domain::{ReaderId, SessionId};
use sqlx::PgPool;

use crate::LogError;

/// The session that a reader has open.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn active_session(
    pool: &PgPool,
    reader_id: ReaderId,
) -> Result<Option<SessionId>, LogError> {
    let claimed = sqlx::query_scalar!(
        "select session_id from claims where reader_id = $1",
        reader_id.uuid()
    )
    .fetch_optional(pool)
    .await?;
    Ok(claimed.and_then(|id| id.parse().ok()))
}
