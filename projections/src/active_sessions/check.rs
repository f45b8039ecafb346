//! Compares the cache with the log.
//!
//! An active entry must equal its session after the same number of events. It must
//! include all events up to the checkpoint, and the session must be active. An
//! inactive entry is wrong if the reader had an active session.

use std::collections::BTreeMap;

use domain::{ReaderId, SessionId};
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use eventlog::load_state::LoadedSession;
use eventlog::{active_claims, load_state};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::format::Content;
use super::scan::{self, ScannedEntry};
use super::{CachedSession, checkpoint, key};
use crate::OperationError;
use crate::cache::Cache;
use crate::verify::{Compared, Difference};

/// An entry that differs from the log.
pub(super) struct Mismatch<'a> {
    pub(super) entry: &'a ScannedEntry,
    /// `None` if the cache must not contain the entry.
    expected: Option<Value>,
}

/// Compares all entries.
pub async fn check(
    cache: &Cache,
    pool: &PgPool,
    stop: &CancellationToken,
) -> Result<Compared, OperationError> {
    let checkpoint = checkpoint::read(cache).await?.unwrap_or(0);
    let mut compared = Compared::new("active_sessions");
    let mut cursor = 0;
    loop {
        if stop.is_cancelled() {
            return Err(OperationError::Stopped);
        }
        let (next, entries) = scan::page(cache, cursor).await?;
        let is_active = |entry: &&ScannedEntry| matches!(entry.content, Content::Active(_));
        compared.rows += entries.iter().filter(is_active).count() as u64;
        for Mismatch { entry, expected } in find_mismatches(pool, &entries, checkpoint).await? {
            compared.differs(Difference {
                found: Some(json!({
                    "key": key(entry.reader_id),
                    "version": entry.version.map(|version| version.to_string()),
                    "entry": match &entry.content {
                        Content::Active(cached) => Some(to_json(cached)),
                        Content::Inactive | Content::Tombstone | Content::Invalid => None,
                    },
                })),
                expected,
            });
        }
        if next == 0 {
            return Ok(compared);
        }
        cursor = next;
    }
}

/// Returns the entries that differ from the log. `checkpoint` was read before the
/// entries.
pub(super) async fn find_mismatches<'a>(
    pool: &PgPool,
    entries: &'a [ScannedEntry],
    checkpoint: i64,
) -> Result<Vec<Mismatch<'a>>, OperationError> {
    let log = LogState::read(pool, entries, checkpoint).await?;
    let mismatches = entries.iter().filter_map(|entry| match &entry.content {
        Content::Tombstone => None,
        Content::Active(cached) => log.check_active(entry, cached),
        Content::Inactive => log.check_inactive(entry),
        Content::Invalid => Some(Mismatch {
            entry,
            expected: None,
        }),
    });
    Ok(mismatches.collect())
}

/// The state in the log of the readers of some entries.
struct LogState {
    /// The cached sessions, after as many events as their entries reflect.
    sessions: BTreeMap<SessionId, LoadedSession>,
    /// The sequence of each cached session at the checkpoint.
    applied: BTreeMap<SessionId, i64>,
    /// The claimed sessions of readers with an inactive entry, as of the version of the
    /// entry or of the checkpoint.
    claimed: BTreeMap<ReaderId, LoadedSession>,
}

impl LogState {
    async fn read(
        pool: &PgPool,
        entries: &[ScannedEntry],
        checkpoint: i64,
    ) -> Result<Self, OperationError> {
        let mut cached = Vec::new();
        let mut at_checkpoint = Vec::new();
        let mut inactive = BTreeMap::new();
        for entry in entries {
            match &entry.content {
                Content::Active(session) => {
                    cached.push((session.session_id, session.sequence));
                    at_checkpoint.push((session.session_id, checkpoint));
                }
                Content::Inactive => {
                    let version = entry.version.unwrap_or(checkpoint).max(checkpoint);
                    inactive.insert(entry.reader_id, version);
                }
                Content::Tombstone | Content::Invalid => {}
            }
        }
        let sessions = load_state::sessions(pool, &cached);
        let sessions = with_deadline(STATEMENT_DEADLINE, sessions).await?;
        let applied = load_state::sequences(pool, &at_checkpoint);
        let applied = with_deadline(STATEMENT_DEADLINE, applied).await?;
        Ok(Self {
            sessions: sessions
                .into_iter()
                .map(|session| (session.session_id, session))
                .collect(),
            applied: applied.into_iter().collect(),
            claimed: read_claimed(pool, &inactive).await?,
        })
    }

    fn check_active<'a>(
        &self,
        entry: &'a ScannedEntry,
        cached: &CachedSession,
    ) -> Option<Mismatch<'a>> {
        let logged = self.sessions.get(&cached.session_id);
        let expected = logged.and_then(|logged| {
            let session = logged
                .session
                .started()
                .filter(|session| session.is_active())?;
            Some(CachedSession {
                session_id: logged.session_id,
                sequence: logged.sequence,
                session: session.clone(),
            })
        });
        let applied = self.applied.get(&cached.session_id);
        let is_behind = applied.is_some_and(|sequence| *sequence > cached.sequence);
        let has_reader_and_version = logged.is_some_and(|logged| {
            let session = logged.session.started();
            session.map(|session| session.start.reader_id) == Some(entry.reader_id)
                && Some(logged.global_position) == entry.version
        });
        if expected.as_ref() == Some(cached) && has_reader_and_version && !is_behind {
            return None;
        }
        let expected = if is_behind {
            Some(json!("the state after later events, up to the checkpoint"))
        } else {
            expected.as_ref().map(|expected| {
                json!({
                    "version": logged.map(|logged| logged.global_position.to_string()),
                    "entry": to_json(expected),
                })
            })
        };
        Some(Mismatch { entry, expected })
    }

    /// An inactive entry is wrong if the claimed session was already active at the
    /// version of the entry or at the checkpoint.
    fn check_inactive<'a>(&self, entry: &'a ScannedEntry) -> Option<Mismatch<'a>> {
        let claimed = self.claimed.get(&entry.reader_id)?;
        claimed
            .session
            .started()
            .filter(|session| session.is_active())?;
        Some(Mismatch {
            entry,
            expected: Some(json!({ "session_id": claimed.session_id })),
        })
    }
}

/// The claimed session of each reader, as of a global position. Leaves out readers
/// without a claim, and sessions that started later.
async fn read_claimed(
    pool: &PgPool,
    readers: &BTreeMap<ReaderId, i64>,
) -> Result<BTreeMap<ReaderId, LoadedSession>, OperationError> {
    let ids: Vec<ReaderId> = readers.keys().copied().collect();
    let claims = active_claims::of_readers(pool, &ids);
    let claims = with_deadline(STATEMENT_DEADLINE, claims).await?;
    let wanted: Vec<(SessionId, i64)> = claims
        .iter()
        .map(|(reader_id, session_id)| (*session_id, readers[reader_id]))
        .collect();
    let sequences = load_state::sequences(pool, &wanted);
    let sequences = with_deadline(STATEMENT_DEADLINE, sequences).await?;
    let sessions = load_state::sessions(pool, &sequences);
    let sessions = with_deadline(STATEMENT_DEADLINE, sessions).await?;
    let mut readers: BTreeMap<SessionId, ReaderId> = claims
        .into_iter()
        .map(|(reader_id, session_id)| (session_id, reader_id))
        .collect();
    let sessions = sessions
        .into_iter()
        .filter_map(|session| Some((readers.remove(&session.session_id)?, session)));
    Ok(sessions.collect())
}

fn to_json(cached: &CachedSession) -> Value {
    json!({
        "session_id": cached.session_id,
        "sequence": cached.sequence,
        "session": cached.session,
    })
}
