//! Idempotency keys: a command that carries one is decided once, however often
//! it is sent, and every repeat gets the first answer. The answer stands in the
//! transaction of the command's events (see [`crate::append`]); here it is made
//! and looked up.

use domain::{ReaderId, SessionError, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;

use crate::LogError;
use crate::append::KeyedAnswer;

/// A client's name for one command. Each reader has names of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    name: String,
    fingerprint: Vec<u8>,
}

/// What is kept under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of the command that was decided under it.
    pub fingerprint: Vec<u8>,
    answer: String,
}

/// What became of a command.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided<A> {
    /// It was taken, and its client was told so.
    Taken(A),
    /// It was refused.
    Refused(SessionError),
}

impl Kept {
    /// What became of the command.
    ///
    /// # Errors
    /// When it was kept by a build that knew more.
    pub fn decided<A: DeserializeOwned>(&self) -> serde_json::Result<Decided<A>> {
        serde_json::from_str(&self.answer)
    }
}

impl Key {
    /// A key of a command; the fingerprint tells commands apart.
    #[must_use]
    pub const fn new(name: String, fingerprint: Vec<u8>) -> Self {
        Self { name, fingerprint }
    }

    /// The client's name for the command.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of the command.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    pub fn keeps<A: Serialize>(
        &self,
        reader_id: ReaderId,
        decided: &Decided<A>,
    ) -> KeyedAnswer {
        KeyedAnswer {
            reader_id,
            key: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            answer: serde_json::to_string(decided).expect("answers are plain JSON"),
        }
    }
}

/// What is kept under a reader's key.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn find(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    name: &str,
) -> Result<Option<Kept>, LogError> {
    let kept = sqlx::query_as!(
        Kept,
        r#"select fingerprint, answer::text as "answer!" from idempotency_keys
        where reader_id = $1 and key = $2"#,
        reader_id.uuid(),
        name
    )
    .fetch_optional(database)
    .await?;
    Ok(kept)
}

/// Forgets some keys that were used before a moment; returns how many. The same
/// key is another command then.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn expire(
    database: impl PgExecutor<'_>,
    before: Timestamp,
    limit: i64,
) -> Result<u64, LogError> {
    let expired = sqlx::query!(
        "delete from idempotency_keys
        where (reader_id, key) in (
            select reader_id, key from idempotency_keys
            where recorded_at < $1
            limit $2
        )",
        before,
        limit
    )
    .execute(database)
    .await?;
    Ok(expired.rows_affected())
}

/// Forgets what is kept under a reader's key.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn forget(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    name: &str,
) -> Result<(), LogError> {
    sqlx::query!(
        "delete from idempotency_keys where reader_id = $1 and key = $2",
        reader_id.uuid(),
        name
    )
    .execute(database)
    .await?;
    Ok(())
}
