//! Locks that serialize the commands of a reader within this process, so that
//! they wait for each other instead of conflicting.
//!
//! The locks only save retries. Between processes, optimistic concurrency in the
//! log decides which command comes first.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use domain::ReaderId;
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

use crate::CommandError;

/// The number of locks. Readers share them by hash, and two readers with the same
/// lock wait at most one commit longer. With hundreds of commands in flight, this
/// many locks keep that rare.
const STRIPES: usize = 8_192;

/// Commands that hold or wait for one lock. A reader's devices send far fewer
/// during a commit. The bound prevents one reader from using up the permits of
/// all commands.
const MAX_COMMANDS_PER_STRIPE: usize = 128;

/// How long a command waits for its lock. Clients wait longer, so a command does
/// not take effect long after its client has given up.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

/// A striped lock with a bounded queue per stripe.
pub(crate) struct ReaderLocks(Box<[Stripe]>);

struct Stripe {
    permits: Semaphore,
    lock: Mutex<()>,
}

/// Releases the lock when dropped.
pub(crate) struct ReaderGuard<'a> {
    _lock: MutexGuard<'a, ()>,
    _permit: SemaphorePermit<'a>,
}

impl Default for ReaderLocks {
    fn default() -> Self {
        let stripe = |_| Stripe {
            permits: Semaphore::new(MAX_COMMANDS_PER_STRIPE),
            lock: Mutex::default(),
        };
        Self((0..STRIPES).map(stripe).collect())
    }
}

impl ReaderLocks {
    /// Locks the reader's commands, in the order of the calls.
    ///
    /// # Errors
    /// [`CommandError::Overloaded`] if the queue is full or the wait times out.
    pub(crate) async fn lock(&self, reader_id: ReaderId) -> Result<ReaderGuard<'_>, CommandError> {
        let stripe = self.stripe(reader_id);
        let permit = stripe
            .permits
            .try_acquire()
            .map_err(|_| CommandError::Overloaded)?;
        let lock = tokio::time::timeout(WAIT_TIMEOUT, stripe.lock.lock())
            .await
            .map_err(|_| CommandError::Overloaded)?;
        Ok(ReaderGuard {
            _lock: lock,
            _permit: permit,
        })
    }

    fn stripe(&self, reader_id: ReaderId) -> &Stripe {
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn reader() -> ReaderId {
        ReaderId::from(Uuid::from_u128(1))
    }

    #[tokio::test]
    async fn full_queue_refuses_at_once() {
        let locks = ReaderLocks::default();
        let stripe = locks.stripe(reader());
        let permits = u32::try_from(MAX_COMMANDS_PER_STRIPE).unwrap();
        let waiting = stripe.permits.try_acquire_many(permits).unwrap();
        let refused = locks.lock(reader()).await;
        assert!(matches!(refused, Err(CommandError::Overloaded)));
        drop(waiting);
        assert!(locks.lock(reader()).await.is_ok());
    }

    #[tokio::test]
    async fn second_command_waits_for_the_first() {
        let locks = ReaderLocks::default();
        let first = locks.lock(reader()).await.unwrap();
        let mut second = std::pin::pin!(locks.lock(reader()));
        let wait = tokio::time::timeout(Duration::from_millis(1), &mut second);
        assert!(wait.await.is_err(), "the first command holds the lock");
        drop(first);
        assert!(second.await.is_ok());
    }
}
