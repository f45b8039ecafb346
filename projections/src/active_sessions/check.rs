//! The cache compared with the log: every entry is what its session was after
//! as many events, none is behind the checkpoint or over, and who has no active
//! session there had none.

use std::collections::BTreeMap;

use domain::{ReaderId, SessionId};
use eventlog::deadline::with_deadline;
use eventlog::load_state::Folded;
use eventlog::{active_claims, load_state};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::scan::{self, Seen};
use super::{Entry, Known, key, position};
use crate::cache::Cache;
use crate::projection::DEADLINE;
use crate::rebuild::ReplayError;
use crate::verify::{Compared, Difference};

/// An entry that is not what the log says.
pub(super) struct Wrong<'a> {
    pub(super) seen: &'a Seen,
    expected: Option<Value>,
}

/// Compares every entry.
///
/// # Errors
/// When Postgres or Redis does not answer, or it was told to stop.
pub async fn check(
    cache: &Cache,
    pool: &PgPool,
    stop: &CancellationToken,
) -> Result<Compared, ReplayError> {
    let checkpoint = position(cache).await?.unwrap_or(0);
    let mut compared = Compared::new("active_sessions");
    let mut cursor = 0;
    loop {
        if stop.is_cancelled() {
            return Err(ReplayError::Stopped);
        }
        let (next, seen) = scan::page(cache, cursor).await?;
        let active = |seen: &&Seen| matches!(seen.known, Known::Active(_));
        compared.rows += seen.iter().filter(active).count() as u64;
        for wrong in wrong(pool, &seen, checkpoint).await? {
            compared.differs(Difference {
                found: Some(json!({
                    "key": key(wrong.seen.reader_id),
                    "version": wrong.seen.version,
                    "entry": match &wrong.seen.known {
                        Known::Active(entry) => Some(shown(entry)),
                        Known::Inactive | Known::Unknown => None,
                    },
                })),
                expected: wrong.expected,
            });
        }
        if next == 0 {
            return Ok(compared);
        }
        cursor = next;
    }
}

/// The wrong ones of some entries; `checkpoint` was read before them.
pub(super) async fn wrong<'a>(
    pool: &PgPool,
    seen: &'a [Seen],
    checkpoint: i64,
) -> Result<Vec<Wrong<'a>>, ReplayError> {
    let log = Log::read(pool, seen, checkpoint).await?;
    let wrong = seen.iter().filter_map(|seen| match &seen.known {
        _ if seen.tombstone => None,
        Known::Active(entry) => log.contradicts(seen, entry),
        Known::Inactive => log.opened(seen, checkpoint),
        Known::Unknown => Some(Wrong {
            seen,
            expected: None,
        }),
    });
    Ok(wrong.collect())
}

/// What the log says of some entries.
struct Log {
    /// Their sessions after as many events.
    folded: BTreeMap<SessionId, Folded>,
    /// How many events their sessions have up to the checkpoint.
    applied: BTreeMap<SessionId, i64>,
    /// The active sessions of readers who have none there, and the positions of
    /// their starts.
    opened: BTreeMap<ReaderId, (SessionId, i64)>,
}

impl Log {
    async fn read(pool: &PgPool, seen: &[Seen], checkpoint: i64) -> Result<Self, ReplayError> {
        let mut wanted = Vec::new();
        let mut ids = Vec::new();
        let mut without = Vec::new();
        for seen in seen {
            match &seen.known {
                Known::Active(entry) => {
                    wanted.push((entry.session_id, entry.sequence));
                    ids.push(entry.session_id);
                }
                Known::Inactive => without.push(seen.reader_id),
                Known::Unknown => {}
            }
        }
        let folded = with_deadline(DEADLINE, load_state::sessions(pool, &wanted)).await?;
        let applied = with_deadline(DEADLINE, load_state::sequences(pool, &ids, checkpoint)).await?;
        let opened = with_deadline(DEADLINE, active_claims::opened(pool, &without)).await?;
        Ok(Self {
            folded: folded
                .into_iter()
                .map(|folded| (folded.session_id, folded))
                .collect(),
            applied: applied.into_iter().collect(),
            opened: opened
                .into_iter()
                .map(|(reader_id, session_id, position)| (reader_id, (session_id, position)))
                .collect(),
        })
    }

    fn contradicts<'a>(&self, seen: &'a Seen, found: &Entry) -> Option<Wrong<'a>> {
        let log = self.folded.get(&found.session_id);
        let expected = log.and_then(|log| {
            let session = log
                .session
                .started()
                .filter(|session| session.is_active())?;
            Some(Entry {
                session_id: log.session_id,
                sequence: log.sequence,
                session: session.clone(),
            })
        });
        let applied = self.applied.get(&found.session_id);
        let behind = applied.is_some_and(|sequence| *sequence > found.sequence);
        let its_own = log.is_some_and(|log| {
            let reader_id = log.session.started().map(|session| session.start.reader_id);
            reader_id == Some(seen.reader_id) && log.global_position.to_string() == seen.version
        });
        if expected.as_ref() == Some(found) && its_own && !behind {
            return None;
        }
        let expected = if behind {
            Some(json!("what later events say, up to its checkpoint"))
        } else {
            expected.as_ref().map(|entry| {
                json!({
                    "version": log.map(|log| log.global_position.to_string()),
                    "entry": shown(entry),
                })
            })
        };
        Some(Wrong { seen, expected })
    }

    /// That there is no active session is wrong if one was started before.
    fn opened<'a>(&self, seen: &'a Seen, checkpoint: i64) -> Option<Wrong<'a>> {
        let (session_id, position) = self.opened.get(&seen.reader_id)?;
        let version: Option<i64> = seen.version.parse().ok();
        if version.is_some_and(|version| *position > version.max(checkpoint)) {
            return None;
        }
        Some(Wrong {
            seen,
            expected: Some(json!({ "session_id": session_id })),
        })
    }
}

fn shown(entry: &Entry) -> Value {
    json!({
        "session_id": entry.session_id,
        "sequence": entry.sequence,
        "session": entry.session,
    })
}
