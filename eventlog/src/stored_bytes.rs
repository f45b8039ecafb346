//! The bytes that readers have stored, until the rate limiter counts them.
//!
//! The appender records the bytes of each command after its commit. The rate limiter
//! takes them with the reader's next call, so no command waits for the count. This
//! module refuses nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::ReaderId;

/// The period of a budget. It begins with the first byte that is counted.
pub const BUDGET_PERIOD: Duration = Duration::from_hours(24);

/// The bytes of an event besides its payload and its metadata: the other columns and
/// the entries of the indexes.
pub const EVENT_OVERHEAD: u64 = 400;

/// The bytes of a stored response besides its key and its JSON.
pub const RESPONSE_OVERHEAD: u64 = 200;

/// Maximum number of readers whose bytes wait, about 4 MB. Beyond it, the bytes of
/// further readers are not counted. [`StoredBytes::take_excess`] prevents that while the
/// count is available.
const MAX_READERS: usize = 65_536;

/// The bytes that wait to be counted, by reader. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct StoredBytes(Arc<Mutex<HashMap<ReaderId, Waiting>>>);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    bytes: u64,
    /// Bytes that may be counted already: they are not sent again, but a budget that this
    /// process checks alone includes them.
    maybe_counted: u64,
    /// When the first of the bytes was stored.
    since: Instant,
}

/// Records the bytes that the commands of one reader store.
#[derive(Clone, Debug)]
pub struct StorageMeter {
    stored: StoredBytes,
    reader_id: ReaderId,
}

/// The bytes of one reader on their way to the count. They wait again if this is dropped
/// before [`TakenBytes::counted`] or [`TakenBytes::maybe_counted`].
#[derive(Debug)]
pub struct TakenBytes {
    stored: StoredBytes,
    reader_id: ReaderId,
    waiting: Waiting,
}

impl StorageMeter {
    /// Adds bytes that a command has stored.
    pub fn record(&self, bytes: u64) {
        if bytes > 0 {
            let waiting = Waiting {
                bytes,
                maybe_counted: 0,
                since: Instant::now(),
            };
            self.stored.add(self.reader_id, waiting);
        }
    }
}

impl StoredBytes {
    #[must_use]
    pub fn meter(&self, reader_id: ReaderId) -> StorageMeter {
        StorageMeter {
            stored: self.clone(),
            reader_id,
        }
    }

    /// Takes the reader's bytes. `None` if there are none; taken bytes are never 0.
    #[must_use]
    pub fn take(&self, reader_id: ReaderId) -> Option<TakenBytes> {
        let mut readers = self.lock();
        let waiting = readers.get_mut(&reader_id)?;
        let taken = *waiting;
        waiting.bytes = 0;
        if waiting.maybe_counted == 0 {
            readers.remove(&reader_id);
        }
        self.taken(reader_id, taken)
    }

    /// Takes the bytes of at most `limit` readers if many readers wait, because they have
    /// not called again.
    #[must_use]
    pub fn take_excess(&self, limit: usize) -> Vec<TakenBytes> {
        let mut readers = self.lock();
        let excess = readers.len().saturating_sub(MAX_READERS / 2).min(limit);
        let ids: Vec<ReaderId> = readers.keys().copied().take(excess).collect();
        let taken = ids
            .into_iter()
            .filter_map(|id| self.taken(id, readers.remove(&id)?));
        taken.collect()
    }

    /// The time until the reader's budget renews, if the bytes that wait have reached it.
    /// This replaces the count while that is unavailable.
    #[must_use]
    pub fn renews_in(&self, reader_id: ReaderId, budget: u64) -> Option<Duration> {
        let waiting = *self.lock().get(&reader_id)?;
        let left = BUDGET_PERIOD.checked_sub(waiting.since.elapsed())?;
        let bytes = waiting.bytes.saturating_add(waiting.maybe_counted);
        (bytes >= budget).then_some(left)
    }

    fn add(&self, reader_id: ReaderId, new: Waiting) {
        let mut readers = self.lock();
        if readers.len() >= MAX_READERS && !readers.contains_key(&reader_id) {
            return;
        }
        let none = Waiting {
            bytes: 0,
            maybe_counted: 0,
            ..new
        };
        let waiting = readers.entry(reader_id).or_insert(none);
        if waiting.since.elapsed() >= BUDGET_PERIOD {
            *waiting = none;
        }
        waiting.bytes = waiting.bytes.saturating_add(new.bytes);
        waiting.maybe_counted = waiting.maybe_counted.saturating_add(new.maybe_counted);
        waiting.since = waiting.since.min(new.since);
    }

    /// `None` if no bytes have to be sent.
    fn taken(&self, reader_id: ReaderId, waiting: Waiting) -> Option<TakenBytes> {
        let waiting = Waiting {
            maybe_counted: 0,
            ..waiting
        };
        (waiting.bytes > 0).then(|| TakenBytes {
            stored: self.clone(),
            reader_id,
            waiting,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReaderId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TakenBytes {
    #[must_use]
    pub const fn reader_id(&self) -> ReaderId {
        self.reader_id
    }

    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.waiting.bytes
    }

    /// The bytes are counted, and the count is available.
    pub fn counted(mut self) {
        self.waiting.bytes = 0;
        let mut readers = self.stored.lock();
        if let Some(waiting) = readers.get_mut(&self.reader_id) {
            waiting.maybe_counted = 0;
            if waiting.bytes == 0 {
                readers.remove(&self.reader_id);
            }
        }
    }

    /// The count was called and did not respond. Sending the bytes again could count them
    /// many times.
    pub fn maybe_counted(mut self) {
        self.waiting.maybe_counted = std::mem::take(&mut self.waiting.bytes);
    }
}

impl Drop for TakenBytes {
    fn drop(&mut self) {
        if self.waiting.bytes > 0 || self.waiting.maybe_counted > 0 {
            self.stored.add(self.reader_id, self.waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn reader(n: u128) -> ReaderId {
        Uuid::from_u128(n).into()
    }

    #[test]
    fn bytes_are_taken_once() {
        let stored = StoredBytes::default();
        stored.meter(reader(1)).record(300);
        stored.meter(reader(1)).record(200);
        let taken = stored.take(reader(1)).unwrap();
        assert_eq!(taken.bytes(), 500);
        assert!(stored.take(reader(1)).is_none());
        taken.counted();
        assert!(stored.take(reader(1)).is_none());
    }

    #[test]
    fn bytes_that_were_not_counted_wait_again() {
        let stored = StoredBytes::default();
        stored.meter(reader(1)).record(300);
        let taken = stored.take(reader(1));
        stored.meter(reader(1)).record(20);
        drop(taken);
        assert_eq!(stored.take(reader(1)).unwrap().bytes(), 320);
    }

    #[test]
    fn bytes_without_a_known_count_are_not_sent_again() {
        let stored = StoredBytes::default();
        stored.meter(reader(1)).record(300);
        stored.take(reader(1)).unwrap().maybe_counted();
        assert!(stored.take(reader(1)).is_none());
        assert!(stored.renews_in(reader(1), 300).is_some());
        // Once the count is available again, it alone decides.
        stored.meter(reader(1)).record(20);
        let taken = stored.take(reader(1)).unwrap();
        assert_eq!(taken.bytes(), 20);
        taken.counted();
        assert!(stored.lock().is_empty());
    }

    #[test]
    fn waiting_bytes_reach_a_budget() {
        let stored = StoredBytes::default();
        stored.meter(reader(1)).record(300);
        assert_eq!(stored.renews_in(reader(1), 301), None);
        assert_eq!(stored.renews_in(reader(2), 1), None);
        let left = stored.renews_in(reader(1), 300).unwrap();
        assert!(left <= BUDGET_PERIOD && left > BUDGET_PERIOD / 2);
    }

    #[test]
    fn number_of_readers_is_bounded() {
        let stored = StoredBytes::default();
        for n in 0..=MAX_READERS as u128 {
            stored.meter(reader(n)).record(1);
        }
        assert_eq!(stored.lock().len(), MAX_READERS);
        let excess = stored.take_excess(100);
        assert_eq!(excess.len(), 100);
        excess.into_iter().for_each(TakenBytes::counted);
        assert_eq!(stored.lock().len(), MAX_READERS - 100);
        let few = StoredBytes::default();
        few.meter(reader(1)).record(1);
        assert!(few.take_excess(100).is_empty());
    }
}
