//! A reader's commands wait for each other instead of conflicting; between
//! processes the log decides.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use domain::ReaderId;
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

use crate::CommandError;

/// Locks that readers share by hash. Two readers behind one lock only wait a
/// commit longer; this many keep that rare with hundreds of commands in flight.
const READER_LOCKS: usize = 8_192;

/// Commands behind one lock: far more than a reader's devices send in the time
/// of a commit, and few enough that one reader cannot take the others' places.
const MAX_OF_A_LOCK: usize = 128;

/// How long a command waits for its turn. Shorter than its client does, so that
/// no command takes effect long after its client was told that it did not.
const TURN: Duration = Duration::from_secs(5);

/// The turns of all readers.
pub struct ReaderLocks(Box<[Stripe]>);

/// The commands of some readers, one after the other.
struct Stripe {
    places: Semaphore,
    lock: Mutex<()>,
}

/// A command's turn; it is over when this is dropped.
pub struct ReaderGuard<'a> {
    _lock: MutexGuard<'a, ()>,
    _place: SemaphorePermit<'a>,
}

impl Default for ReaderLocks {
    fn default() -> Self {
        let line = |_| Stripe {
            places: Semaphore::new(MAX_OF_A_LOCK),
            lock: Mutex::default(),
        };
        Self((0..READER_LOCKS).map(line).collect())
    }
}

impl ReaderLocks {
    /// The turn of one of the reader's commands.
    ///
    /// # Errors
    /// [`CommandError::Overloaded`] when too many wait, or it takes too long.
    pub async fn of(&self, reader_id: ReaderId) -> Result<ReaderGuard<'_>, CommandError> {
        let line = self.line(reader_id);
        let place = line
            .places
            .try_acquire()
            .map_err(|_| CommandError::Overloaded)?;
        let lock = tokio::time::timeout(TURN, line.lock.lock())
            .await
            .map_err(|_| CommandError::Overloaded)?;
        Ok(ReaderGuard {
            _lock: lock,
            _place: place,
        })
    }

    fn line(&self, reader_id: ReaderId) -> &Stripe {
        let mut hasher = DefaultHasher::new();
        reader_id.hash(&mut hasher);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only the remainder matters"
        )]
        let hash = hasher.finish() as usize;
        &self.0[hash % self.0.len()]
    }
}
