//! The audit: which operator did what, when, and with which result.
//!
//! [`begin`] commits an entry before the action, and [`end`] adds the outcome. An action that
//! took effect therefore has an entry, also if its process was killed in between: the
//! outcome is then still [`Outcome::Started`]. Two SQL functions are the only way to write
//! the table.
//!
//! An entry contains no data of readers except their ids. This module performs no action.

use domain::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgExecutor;

use crate::LogError;
use crate::deadline::{STATEMENT_DEADLINE, with_deadline};

/// The longest text in an entry, in characters: targets of HTTP requests and errors have
/// any length.
const MAX_TEXT_LENGTH: usize = 500;

/// Actions of operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Pause,
    Resume,
    Replay,
    Verify,
    Retry,
    Discard,
    RunJob,
    WarmUp,
    Cleanup,
    ExportReader,
    EraseReader,
}

impl Action {
    pub const ALL: [Self; 11] = [
        Self::Pause,
        Self::Resume,
        Self::Replay,
        Self::Verify,
        Self::Retry,
        Self::Discard,
        Self::RunJob,
        Self::WarmUp,
        Self::Cleanup,
        Self::ExportReader,
        Self::EraseReader,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Replay => "replay",
            Self::Verify => "verify",
            Self::Retry => "retry",
            Self::Discard => "discard",
            Self::RunJob => "run_job",
            Self::WarmUp => "warm_up",
            Self::Cleanup => "cleanup",
            Self::ExportReader => "export_reader",
            Self::EraseReader => "erase_reader",
        }
    }
}

/// Where an action was requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Origin {
    Http,
    Cli,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Outcome {
    /// The action runs, or its process was killed or could not store the outcome.
    Started,
    Succeeded,
    Failed,
}

/// An entry before its action.
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    /// The subject of a token, or `user@host` of the command line.
    pub actor: &'a str,
    pub origin: Origin,
    /// Of [`Action`], or the method and the path of an HTTP request.
    pub action: &'a str,
    /// The projection, the job, the dead letter or the reader; `None` if the action has none.
    pub target: Option<&'a str>,
    /// A JSON object with the options of the action.
    pub details: Value,
}

/// An entry of the audit.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Ascends with time.
    pub id: i64,
    pub at: Timestamp,
    pub actor: String,
    /// The role of Postgres that wrote the entry.
    pub role: String,
    pub origin: Origin,
    pub action: String,
    pub target: Option<String>,
    /// A JSON object: options, and results of the action.
    pub details: Value,
    pub outcome: Outcome,
    /// `None` if the outcome is [`Outcome::Started`].
    pub ended_at: Option<Timestamp>,
    /// Why the action failed; `None` if it did not.
    pub error: Option<String>,
}

/// Begins an entry and returns its id. The action must not begin before this returns.
pub async fn begin(database: impl PgExecutor<'_>, entry: &NewEntry<'_>) -> Result<i64, LogError> {
    let begun = sqlx::query_scalar!(
        r#"select audit_begin($1, $2, $3, $4, $5) as "id!""#,
        storable(entry.actor),
        entry.origin as Origin,
        storable(entry.action),
        entry.target.map(storable),
        entry.details
    )
    .fetch_one(database);
    Ok(with_deadline(STATEMENT_DEADLINE, begun).await?)
}

/// Ends an entry. `result` is the error of a failed action. The members of `details` are
/// added to those of [`NewEntry::details`]. Has no effect on an entry that has ended.
pub async fn end(
    database: impl PgExecutor<'_>,
    id: i64,
    result: Result<(), &str>,
    details: &Value,
) -> Result<(), LogError> {
    let (outcome, error) = match result {
        Ok(()) => (Outcome::Succeeded, None),
        Err(error) => (Outcome::Failed, Some(storable(error))),
    };
    let ended = sqlx::query!(
        "select audit_end($1, $2, $3, $4)",
        id,
        outcome as Outcome,
        error,
        details
    )
    .execute(database);
    with_deadline(STATEMENT_DEADLINE, ended).await?;
    Ok(())
}

/// Whether the role of this process may read the audit.
pub async fn is_readable(database: impl PgExecutor<'_>) -> Result<bool, LogError> {
    let readable =
        sqlx::query_scalar!(r#"select has_table_privilege('audit', 'select') as "is_readable!""#)
            .fetch_one(database);
    Ok(with_deadline(STATEMENT_DEADLINE, readable).await?)
}

/// At most `limit` entries with an id below `before`, newest first; from the newest one if
/// `before` is `None`.
pub async fn list(
    database: impl PgExecutor<'_>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Entry>, LogError> {
    let listed = sqlx::query_as!(
        Entry,
        r#"select id, at, actor, role, origin as "origin: Origin", action, target, details,
            outcome as "outcome: Outcome", ended_at, error
        from audit
        where id < $1
        order by id desc
        limit $2"#,
        before.unwrap_or(i64::MAX),
        limit
    )
    .fetch_all(database);
    Ok(with_deadline(STATEMENT_DEADLINE, listed).await?)
}

/// One entry; `None` if there is none with this id.
pub async fn find(database: impl PgExecutor<'_>, id: i64) -> Result<Option<Entry>, LogError> {
    let found = list(database, id.checked_add(1), 1).await?;
    Ok(found.into_iter().find(|entry| entry.id == id))
}

/// Postgres stores no NUL.
fn storable(text: &str) -> String {
    let text = text.replace('\0', "\u{fffd}");
    match text.char_indices().nth(MAX_TEXT_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_storable() {
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
        let longest = "é".repeat(MAX_TEXT_LENGTH);
        assert_eq!(storable(&longest), longest);
        assert_eq!(storable(&format!("{longest}x")), format!("{longest}…"));
    }

    #[test]
    fn names_of_actions_are_those_in_json() {
        for action in Action::ALL {
            assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
        }
    }
}
