//! Sessions as they stand: loaded from the log, kept in memory. What is kept
//! may be old, since other processes append too; an append then conflicts and
//! only the tail is read. So the cache needs no invalidation to be safe.

use std::sync::Arc;

use domain::{ReadingSession, SessionEvent, SessionId};
use quick_cache::Weighter;
use quick_cache::sync::{Cache, EntryAction, EntryResult};

use eventlog::append::Append;
use eventlog::{AppendError, Appender, LogError, Pool, load_state, read};

/// The memory that kept sessions may take, in bytes, and how many of the usual
/// size that is.
const CACHE_BYTES: u64 = 64 << 20;
const CACHE_SESSIONS: usize = 100_000;

/// What a session takes besides its texts.
const SESSION_BYTES: usize = 512;

/// A session and how many events it has.
#[derive(Clone, Debug, Default)]
pub struct VersionedSession {
    /// The session after its `sequence`-th event.
    pub session: ReadingSession,
    /// The sequence of its last event; 0 before the first.
    pub sequence: i64,
}

impl VersionedSession {
    /// The session after more events.
    #[must_use]
    pub fn then(&self, events: &[SessionEvent]) -> Self {
        let mut next = self.clone();
        for event in events {
            next.session.apply(event);
            next.sequence += 1;
        }
        next
    }

    /// About how much memory it takes.
    fn bytes(&self) -> u64 {
        let texts = self.session.started().map_or(0, |session| {
            let book = session.start.book.as_ref();
            [
                session.start.device_id.as_ref(),
                session.start.locator.as_ref(),
                session.progress.latest.locator.as_ref(),
                book.and_then(|book| book.title.as_ref()),
                book.and_then(|book| book.author.as_ref()),
            ]
            .into_iter()
            .flatten()
            .map(String::len)
            .sum()
        });
        (SESSION_BYTES + texts) as u64
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<SessionId, Arc<VersionedSession>> for Bytes {
    fn weight(&self, _id: &SessionId, kept: &Arc<VersionedSession>) -> u64 {
        kept.bytes()
    }
}

/// Loads sessions, and keeps them.
pub struct Repository {
    pool: Pool,
    appender: Appender,
    cache: Cache<SessionId, Arc<VersionedSession>, Bytes>,
}

impl Repository {
    /// Reads by `pool`, appends by `appender`.
    #[must_use]
    pub fn new(pool: impl Into<Pool>, appender: Appender) -> Self {
        let pool = pool.into();
        Self {
            pool,
            appender,
            cache: Cache::with_weighter(CACHE_SESSIONS, CACHE_BYTES, Bytes),
        }
    }

    /// The session as far as it is known here: good to decide on, since the
    /// append finds out when it is old. Empty when there is none.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn load(&self, id: SessionId) -> Result<Arc<VersionedSession>, LogError> {
        if let Some(cached) = self.cache.get(&id) {
            return Ok(cached);
        }
        let loaded = load_state::session(&self.pool, id).await?;
        let loaded = loaded.map_or_else(VersionedSession::default, |folded| VersionedSession {
            session: folded.session,
            sequence: folded.sequence,
        });
        Ok(self.keep(id, Arc::new(loaded)))
    }

    /// The session with all that is committed: what is known here and the
    /// tail that others wrote.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn load_newest(&self, id: SessionId) -> Result<Arc<VersionedSession>, LogError> {
        let Some(known) = self.cache.get(&id) else {
            return self.load(id).await;
        };
        let tail = read::session(&self.pool, id, known.sequence).await?;
        if tail.is_empty() {
            return Ok(known);
        }
        let mut newest = VersionedSession::clone(&known);
        for event in tail {
            newest.session.apply(&event.decode()?.event);
            newest.sequence = event.sequence;
        }
        Ok(self.keep(id, Arc::new(newest)))
    }

    /// The session with all up to a sequence that the log has, and perhaps more.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn load_from(
        &self,
        id: SessionId,
        sequence: i64,
    ) -> Result<Arc<VersionedSession>, LogError> {
        match self.cache.get(&id) {
            Some(known) if known.sequence >= sequence => Ok(known),
            _ => self.load_newest(id).await,
        }
    }

    /// Keeps a session as it stands after an append, unless a newer one is
    /// kept already. A session without events is not kept: anyone may ask for
    /// any id.
    #[must_use]
    pub fn keep(&self, id: SessionId, offered: Arc<VersionedSession>) -> Arc<VersionedSession> {
        if offered.sequence == 0 {
            return offered;
        }
        let entry = self.cache.entry(&id, None, |_, kept| {
            if kept.sequence < offered.sequence {
                kept.clone_from(&offered);
            }
            EntryAction::Retain(Arc::clone(kept))
        });
        match entry {
            EntryResult::Retained(kept) => return kept,
            EntryResult::Vacant(place) => drop(place.insert(Arc::clone(&offered))),
            EntryResult::Removed(..) | EntryResult::Replaced(..) | EntryResult::Timeout => {}
        }
        offered
    }

    /// Appends the effect of a command.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(&self, append: Append) -> Result<Vec<i64>, AppendError> {
        self.appender.append(append).await
    }

    /// For queries beside the command path.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
