//! A worker's in-memory index of its projection's dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use domain::{SessionEvent, SessionId};
use eventlog::LogEntry;
use eventlog::deadline::{STATEMENT_DEADLINE, with_deadline};
use sqlx::PgPool;

use super::{ParkReason, State, error_text};

/// The maximum number of open dead letters of a projection. Single bad events do
/// not reach it. The worker usually runs the wrong build then: it applies nothing
/// more and retries.
pub(crate) const MAX_DEAD_LETTERS: usize = 10_000;

/// The age at which the index is read again. Bounds how late the worker sees an
/// operator's request.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct DeadLetterIndex {
    /// Sessions with dead letters in any state.
    sessions: BTreeSet<String>,
    /// Global positions of discarded events.
    discarded: BTreeSet<i64>,
    /// Global positions of the parked and waiting events of each session,
    /// ascending.
    open: BTreeMap<String, Vec<i64>>,
    open_count: usize,
    sessions_to_retry: Vec<String>,
    read_at: Instant,
}

/// The worker's decision about an event.
#[derive(Debug)]
pub(crate) enum Disposition {
    Apply,
    /// Pass the event without a dead letter, since an operator discarded it.
    Skip,
    Park(ParkReason),
}

impl DeadLetterIndex {
    pub(crate) async fn read(pool: &PgPool, projection: &str) -> sqlx::Result<Self> {
        let rows = sqlx::query!(
            r#"select global_position, session_id, state as "state: State", asked
            from dead_letters
            where projection = $1
            order by session_id, global_position"#,
            projection
        )
        .fetch_all(pool);
        let mut index = Self {
            sessions: BTreeSet::new(),
            discarded: BTreeSet::new(),
            open: BTreeMap::new(),
            open_count: 0,
            sessions_to_retry: Vec::new(),
            read_at: Instant::now(),
        };
        let mut blocked = BTreeSet::new();
        for row in with_deadline(STATEMENT_DEADLINE, rows).await? {
            index.sessions.insert(row.session_id.clone());
            if row.state == State::Discarded {
                index.discarded.insert(row.global_position);
                continue;
            }
            if row.state == State::Parked && !row.asked {
                blocked.insert(row.session_id.clone());
            }
            let open = index.open.entry(row.session_id).or_default();
            open.push(row.global_position);
            index.open_count += 1;
        }
        // Includes sessions whose parked event was discarded: nothing blocks them
        // any more, so they need no request.
        index.sessions_to_retry = index
            .open
            .keys()
            .filter(|session| !blocked.contains(*session))
            .cloned()
            .collect();
        Ok(index)
    }

    /// Whether the index should be read again. Operators change dead letters, and
    /// a replay replaces them.
    pub(crate) fn is_stale(&self) -> bool {
        self.read_at.elapsed() >= REFRESH_INTERVAL
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open_count >= MAX_DEAD_LETTERS
    }

    pub(crate) fn sessions_to_retry(&self) -> &[String] {
        &self.sessions_to_retry
    }

    /// Global positions of the parked and waiting events of a session, ascending.
    pub(crate) fn open_events(&self, session: &str) -> &[i64] {
        self.open.get(session).map_or(&[], Vec::as_slice)
    }

    /// Decides what happens to an event. An erasure is always applied.
    pub(crate) fn classify(&self, event: &LogEntry) -> Disposition {
        if let LogEntry::Event(event, _) = event
            && let SessionEvent::SessionErased(_) = event.event
        {
            return Disposition::Apply;
        }
        if self.discarded.contains(&event.global_position()) {
            return Disposition::Skip;
        }
        if !self.open.is_empty()
            && let Some(&first) = self.open_events(&event.session_id()).first()
        {
            return Disposition::Park(ParkReason::BlockedBy(first));
        }
        match event {
            LogEntry::Event(..) => Disposition::Apply,
            LogEntry::Undecodable(event) => {
                Disposition::Park(ParkReason::Failed(error_text(&event.error)))
            }
        }
    }

    /// Adds an event that the current batch parks.
    pub(crate) fn park(&mut self, event: &LogEntry) {
        self.sessions.insert(event.session_id());
        let open = self.open.entry(event.session_id()).or_default();
        open.push(event.global_position());
        self.open_count += 1;
    }

    /// Removes an erased session. Returns whether it had dead letters.
    pub(crate) fn erase(&mut self, session: &str) -> bool {
        let open = self.open.remove(session);
        self.open_count -= open.map_or(0, |open| open.len());
        self.sessions_to_retry.retain(|retry| retry != session);
        self.sessions.remove(session)
    }
}

/// Returns those of `sessions` that have parked or waiting events.
pub(crate) async fn sessions_with_dead_letters(
    pool: &PgPool,
    projection: &str,
    sessions: &[SessionId],
) -> sqlx::Result<BTreeSet<String>> {
    let sessions: Vec<String> = sessions.iter().map(ToString::to_string).collect();
    let found = sqlx::query_scalar!(
        "select session_id from dead_letters
        where projection = $1 and session_id = any ($2) and state <> 'discarded'",
        projection,
        &sessions
    )
    .fetch_all(pool)
    .await?;
    Ok(found.into_iter().collect())
}
