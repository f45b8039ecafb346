//! What a worker knows of its projection's dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use domain::{SessionEvent, SessionId};
use eventlog::Logged;
use eventlog::deadline::with_deadline;
use sqlx::PgPool;

use super::Why;
use crate::projection::DEADLINE;

/// Dead letters that a projection may have. One that has more is not met by a
/// bad event now and then: it runs with the wrong build, and stops.
pub(crate) const MAX_LETTERS: usize = 10_000;

/// How soon an operator's wish is seen.
const LOOK: Duration = Duration::from_millis(500);

/// Which events are left out, and whose.
#[derive(Debug)]
pub(crate) struct DeadLetterIndex {
    /// Sessions that have letters of any kind.
    sessions: BTreeSet<String>,
    /// Events left out for good.
    discarded: BTreeSet<i64>,
    /// The parked and waiting events of each session, in order.
    open: BTreeMap<String, Vec<i64>>,
    open_count: usize,
    /// Sessions to be tried again.
    asked: Vec<String>,
    read_at: Instant,
}

/// What becomes of an event.
#[derive(Debug)]
pub(crate) enum Disposition {
    /// It is applied, if it can be.
    Apply,
    /// It is passed without a word: an operator has discarded it.
    Skip,
    /// It is parked.
    Park(Why),
}

impl DeadLetterIndex {
    /// Reads the letters of a projection.
    pub(crate) async fn read(pool: &PgPool, projection: &str) -> sqlx::Result<Self> {
        let rows = sqlx::query!(
            "select global_position, session_id, state, asked from dead_letters
            where projection = $1
            order by session_id, global_position",
            projection
        )
        .fetch_all(pool);
        let mut known = Self {
            sessions: BTreeSet::new(),
            discarded: BTreeSet::new(),
            open: BTreeMap::new(),
            open_count: 0,
            asked: Vec::new(),
            read_at: Instant::now(),
        };
        let mut held = BTreeSet::new();
        for row in with_deadline(DEADLINE, rows).await? {
            known.sessions.insert(row.session_id.clone());
            if row.state == "discarded" {
                known.discarded.insert(row.global_position);
                continue;
            }
            if row.state == "parked" && !row.asked {
                held.insert(row.session_id.clone());
            }
            let open = known.open.entry(row.session_id).or_default();
            open.push(row.global_position);
            known.open_count += 1;
        }
        // Those that wait for nothing any more go on without being asked for.
        known.asked = known
            .open
            .keys()
            .filter(|session| !held.contains(*session))
            .cloned()
            .collect();
        Ok(known)
    }

    /// Whether it is time to read them again: operators ask for something, and
    /// a replay brings letters of its own.
    pub(crate) fn is_old(&self) -> bool {
        self.read_at.elapsed() >= LOOK
    }

    /// Whether there are as many as there may be.
    pub(crate) fn is_full(&self) -> bool {
        self.open_count >= MAX_LETTERS
    }

    /// Sessions to be tried again.
    pub(crate) fn asked(&self) -> &[String] {
        &self.asked
    }

    /// The parked and waiting events of a session, in order.
    pub(crate) fn of(&self, session: &str) -> &[i64] {
        self.open.get(session).map_or(&[], Vec::as_slice)
    }

    /// What becomes of an event. An erasure is held up by nothing.
    pub(crate) fn judge(&self, event: &Logged) -> Disposition {
        if let Logged::Event(event) = event
            && let SessionEvent::SessionErased(_) = event.event
        {
            return Disposition::Apply;
        }
        if self.discarded.contains(&event.global_position()) {
            return Disposition::Skip;
        }
        if !self.open.is_empty()
            && let Some(&first) = self.of(&event.session_id()).first()
        {
            return Disposition::Park(Why::Waiting(first));
        }
        match event {
            Logged::Event(_) => Disposition::Apply,
            Logged::Undecodable(event) => Disposition::Park(Why::Parked(text(&event.error))),
        }
    }

    /// Adds an event that is parked now.
    pub(crate) fn park(&mut self, event: &Logged) {
        self.sessions.insert(event.session_id());
        let open = self.open.entry(event.session_id()).or_default();
        open.push(event.global_position());
        self.open_count += 1;
    }

    /// Forgets a session that is erased; tells whether it had letters.
    pub(crate) fn erase(&mut self, session: &str) -> bool {
        let open = self.open.remove(session);
        self.open_count -= open.map_or(0, |open| open.len());
        self.asked.retain(|asked| asked != session);
        self.sessions.remove(session)
    }
}

/// Of some sessions, those that have events which could not be applied, or wait.
pub(crate) async fn held(
    pool: &PgPool,
    projection: &str,
    sessions: &[SessionId],
) -> sqlx::Result<BTreeSet<String>> {
    let sessions: Vec<String> = sessions.iter().map(ToString::to_string).collect();
    let held = sqlx::query_scalar!(
        "select session_id from dead_letters
        where projection = $1 and session_id = any ($2) and state <> 'discarded'",
        projection,
        &sessions
    )
    .fetch_all(pool)
    .await?;
    Ok(held.into_iter().collect())
}

/// The longest error kept, in characters: some quote what they do not like.
const MAX_TEXT: usize = 1_000;

/// An error and its causes, as an operator reads them and Postgres keeps them.
pub(crate) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some say their cause themselves.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    let plain = |c: char| {
        if c == '\0' {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().take(MAX_TEXT).map(plain).collect()
}
