//! Idempotency keys: a command with a key is decided once, and every repeat of it
//! gets the first response.
//!
//! The log stores the serialized response under the key, in the transaction of
//! the command's events (see [`crate::append`]). This module serializes and finds
//! responses. It does not interpret them: the response type `R` belongs to the
//! HTTP interface.

use domain::{ReaderId, SessionError, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;

use crate::LogError;
use crate::append::KeyedResponse;

/// The maximum size of a stored response, in bytes. The response to a single command or a
/// batch is smaller: its longest parts are one locator and 100 warnings.
pub const MAX_STORED_RESPONSE: usize = 128 * 1024;

/// The key that a client gave to a command. Each reader has its own keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    name: String,
    fingerprint: Vec<u8>,
}

/// The response stored under a key, still serialized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The fingerprint of the command that was decided under the key.
    pub fingerprint: Vec<u8>,
    response: String,
}

/// The decision on a command, with the response to its client. The log contains
/// its JSON, so the serialized names must not change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<R> {
    #[serde(rename = "taken")]
    Accepted(R),
    Refused(SessionError),
}

impl StoredResponse {
    /// # Errors
    /// If a newer build stored a response that this build cannot decode.
    pub fn decision<R: DeserializeOwned>(&self) -> serde_json::Result<Outcome<R>> {
        serde_json::from_str(&self.response)
    }
}

impl IdempotencyKey {
    /// `fingerprint` distinguishes a repeat of the command from another command
    /// with the same key.
    #[must_use]
    pub const fn new(name: String, fingerprint: Vec<u8>) -> Self {
        Self { name, fingerprint }
    }

    /// The key as the client sent it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// The decision on the reader's command, to be appended under this key.
    pub fn respond<R: Serialize>(
        &self,
        reader_id: ReaderId,
        decision: &Outcome<R>,
    ) -> KeyedResponse {
        KeyedResponse {
            reader_id,
            key: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            response: serde_json::to_string(decision).expect("responses are plain JSON"),
        }
    }
}

/// The response stored under a reader's key, if any.
pub async fn find(
    database: impl PgExecutor<'_>,
    reader_id: ReaderId,
    name: &str,
) -> Result<Option<StoredResponse>, LogError> {
    let stored = sqlx::query_as!(
        StoredResponse,
        r#"select fingerprint, answer::text as "response!" from idempotency_keys
        where reader_id = $1 and key = $2"#,
        reader_id.uuid(),
        name
    )
    .fetch_optional(database)
    .await?;
    Ok(stored)
}

/// Deletes at most `limit` keys that were used before a time, and returns how
/// many. The same key then names a new command.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_json_of_earlier_builds_is_decoded() {
        let stored = |response: &str| StoredResponse {
            fingerprint: Vec::new(),
            response: response.to_owned(),
        };
        let accepted = stored(r#"{"taken":7}"#).decision::<i32>().unwrap();
        assert!(matches!(accepted, Outcome::Accepted(7)));
        let refused = Outcome::<i32>::Refused(SessionError::AlreadyEnded);
        let json = serde_json::to_string(&refused).unwrap();
        assert!(json.starts_with(r#"{"refused":"#), "{json}");
        assert!(matches!(
            stored(&json).decision::<i32>().unwrap(),
            Outcome::Refused(SessionError::AlreadyEnded)
        ));
    }
}
