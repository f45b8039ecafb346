//! Renewal of a lease while its holder works.
//!
//! Projections and jobs each have a table with a lease per row. They take and
//! release it with SQL of their own and share this loop. A lease only avoids
//! duplicate work. Exactly-once effects come from checkpoints and idempotent
//! steps, because a stalled process can continue after its lease has expired.

use std::time::Duration;

use tokio::time::Instant;

/// Why a lease ended before its holder released it.
#[derive(Debug, PartialEq, Eq)]
pub enum LeaseEnd<E> {
    /// Another process holds it, or an operator paused the work.
    Lost,
    /// No renewal succeeded within the term. The holder must stop, because
    /// another process may take the lease now. Contains the last error.
    Expired(E),
}

/// Renews a lease every `interval` until it is lost or expired, and returns why
/// it ended. Returns `None` once `stopped` resolves.
///
/// `renew` returns `false` if the caller no longer holds the lease. Its errors
/// are tolerated until `term` has passed since the last successful renewal.
/// `stopped` does not interrupt a renewal that has begun.
pub async fn keep_renewed<E, R>(
    interval: Duration,
    term: Duration,
    stopped: impl Future<Output = ()>,
    // Not an `AsyncFnMut`: the compiler could not prove that the future is `Send`.
    mut renew: impl FnMut() -> R,
) -> Option<LeaseEnd<E>>
where
    R: Future<Output = Result<bool, E>>,
{
    let mut stopped = std::pin::pin!(stopped);
    let mut renewed_at = Instant::now();
    loop {
        if tokio::time::timeout(interval, &mut stopped).await.is_ok() {
            return None;
        }
        let began_at = Instant::now();
        match renew().await {
            // Postgres renewed the lease at some time during the call. Assume the earliest.
            Ok(true) => renewed_at = began_at,
            Ok(false) => return Some(LeaseEnd::Lost),
            Err(error) if renewed_at.elapsed() >= term => return Some(LeaseEnd::Expired(error)),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn lease_of_another_holder_is_lost() {
        let mut renewals = 0;
        let end = keep_renewed(INTERVAL, Duration::MAX, pending(), || {
            renewals += 1;
            ready(Ok::<_, ()>(renewals < 3))
        });
        assert_eq!(end.await, Some(LeaseEnd::Lost));
        assert_eq!(renewals, 3);
    }

    #[tokio::test]
    async fn errors_are_tolerated_within_the_term() {
        let mut results = [Err("first"), Ok(true), Err("second"), Ok(false)].into_iter();
        let end = keep_renewed(INTERVAL, Duration::MAX, pending(), || {
            ready(results.next().expect("the lease was lost before"))
        });
        assert_eq!(end.await, Some(LeaseEnd::Lost));
    }

    #[tokio::test]
    async fn lease_expires_after_a_term_of_errors() {
        let end = keep_renewed(INTERVAL, INTERVAL, pending(), || ready(Err("unreachable")));
        assert_eq!(end.await, Some(LeaseEnd::Expired("unreachable")));
    }

    #[tokio::test]
    async fn stopped_holder_ends_without_renewal() {
        let end = keep_renewed(INTERVAL, INTERVAL, ready(()), || {
            ready(Err("must not be called"))
        });
        assert_eq!(end.await, None);
    }
}
