//! The open connections of a listener. If there is no permit for a new one, those that
//! have been waiting longest for their client are closed: idle ones, and those whose
//! client does not receive a response. So a client with many connections does not keep
//! others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::timeouts::ConnectionTimeout;
use crate::rate_limit::address_or_network;

/// Bounds on the open connections of a listener.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Open connections in total. This bounds memory, because each connection can hold a
    /// header buffer and a body, and it bounds file descriptors.
    pub total: usize,
    /// Open connections of one address, or of one /64 network of IPv6.
    pub per_address: usize,
    /// Networks of proxies, which open connections for many clients. They are bounded by
    /// `total` only.
    pub proxies: Arc<[IpNet]>,
}

impl ConnectionLimits {
    /// One address may have a quarter of all connections: carriers put thousands of
    /// readers behind one address, but four of them must not use up everything.
    #[must_use]
    pub fn new(total: usize, proxies: &[IpNet]) -> Self {
        Self {
            total,
            per_address: (total / 4).max(1),
            proxies: proxies.into(),
        }
    }

    fn limits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        !self.proxies.iter().any(|network| network.contains(&peer))
    }
}

/// Each search for connections to close reads all of them, so it closes this fraction of
/// the limit at a time.
const EVICTION_SHARE: usize = 128;

/// If no permit becomes free, the time until the next search for connections to close.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// See the [module](self).
#[derive(Debug)]
pub struct OpenConnections {
    limits: ConnectionLimits,
    permits: Arc<Semaphore>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    by_id: HashMap<u64, Entry>,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    timeout: ConnectionTimeout,
    close: CancellationToken,
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    connections: Arc<OpenConnections>,
    id: u64,
    pub timeout: ConnectionTimeout,
    /// Cancelled when the connection must close, to make room for another one.
    pub close: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl OpenConnections {
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.total)),
            limits,
            table: Mutex::default(),
        }
    }

    /// Waits for a permit for one connection. If there is none, it closes the connections
    /// that have been waiting longest.
    pub async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                return permit;
            }
            let count = eviction_count(self.limits.total);
            self.lock().close_waiting(count, |_| true);
            let permit = Arc::clone(&self.permits).acquire_owned();
            if let Ok(permit) = tokio::time::timeout(SEARCH_INTERVAL, permit).await {
                return permit.expect("the semaphore is never closed");
            }
        }
    }

    /// Adds an accepted connection. If its address has too many, those of them that have
    /// been waiting longest are closed. `None` if none is waiting: the new connection must
    /// be closed.
    pub fn open(
        self: &Arc<Self>,
        peer: IpAddr,
        timeout: ConnectionTimeout,
        permit: OwnedSemaphorePermit,
    ) -> Option<OpenConnection> {
        let address = address_or_network(peer);
        let limit = self.limits.per_address;
        let mut table = self.lock();
        let open = table.by_address.get(&address).copied().unwrap_or(0);
        if open >= limit && self.limits.limits(peer) {
            let count = eviction_count(limit);
            if table.close_waiting(count, |entry| entry.address == address) == 0 {
                return None;
            }
        }
        let close = CancellationToken::new();
        let id = table.next_id;
        table.next_id += 1;
        *table.by_address.entry(address).or_default() += 1;
        table.by_id.insert(
            id,
            Entry {
                address,
                timeout: timeout.clone(),
                close: close.clone(),
            },
        );
        Some(OpenConnection {
            connections: Arc::clone(self),
            id,
            timeout,
            close,
            _permit: permit,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes at most `count` of the matching connections: those that have been waiting
    /// longest. Returns how many. They no longer count for their address; their permits
    /// are free when they are closed.
    fn close_waiting(&mut self, count: usize, matches: impl Fn(&Entry) -> bool) -> usize {
        let entries = self.by_id.iter().filter(|(_, entry)| matches(entry));
        let mut waiting: Vec<(Instant, u64)> = entries
            .filter_map(|(id, entry)| Some((entry.timeout.waiting_since()?, *id)))
            .collect();
        if waiting.len() > count {
            waiting.select_nth_unstable(count);
            waiting.truncate(count);
        }
        for (_, id) in &waiting {
            if let Some(entry) = self.remove(*id) {
                entry.close.cancel();
            }
        }
        waiting.len()
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        if let Some(count) = self.by_address.get_mut(&entry.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&entry.address);
            }
        }
        Some(entry)
    }
}

fn eviction_count(limit: usize) -> usize {
    (limit / EVICTION_SHARE).max(1)
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::ClientTimeouts;

    fn connections(total: usize, per_address: usize) -> Arc<OpenConnections> {
        Arc::new(OpenConnections::new(ConnectionLimits {
            total,
            per_address,
            proxies: ["10.0.0.0/8".parse().unwrap()].into(),
        }))
    }

    async fn open(connections: &Arc<OpenConnections>, peer: &str) -> Option<OpenConnection> {
        let permit = connections.permit().await;
        // A later connection has been waiting for a shorter time.
        tokio::time::advance(Duration::from_secs(1)).await;
        let timeout = ConnectionTimeout::new(ClientTimeouts::default());
        connections.open(peer.parse().unwrap(), timeout, permit)
    }

    fn is_closing(connection: &OpenConnection) -> bool {
        connection.close.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_waits_longest_makes_room_for_a_new_one() {
        let connections = connections(3, 3);
        let busy = open(&connections, "192.0.2.1").await.unwrap();
        let _request = busy.timeout.begin_request();
        let longest = open(&connections, "192.0.2.2").await.unwrap();
        // Its client does not receive the response.
        let mut unread = longest.timeout.begin_request();
        unread.respond();
        let other = open(&connections, "192.0.2.3").await.unwrap();
        let new = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { open(&connections, "192.0.2.4").await }
        });
        longest.close.cancelled().await;
        assert!(!is_closing(&busy) && !is_closing(&other));
        drop(longest);
        assert!(new.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn address_with_too_many_connections_loses_the_one_that_waits_longest() {
        let connections = connections(10, 2);
        let elsewhere = open(&connections, "192.0.2.1").await.unwrap();
        // Addresses of one network.
        let first = open(&connections, "2001:db8::1").await.unwrap();
        let second = open(&connections, "2001:db8::2").await.unwrap();
        let third = open(&connections, "2001:db8::3").await.unwrap();
        assert!(is_closing(&first));
        assert!(!is_closing(&elsewhere) && !is_closing(&second));
        let requests = [
            second.timeout.begin_request(),
            third.timeout.begin_request(),
        ];
        assert!(open(&connections, "2001:db8::4").await.is_none());
        drop(requests);
        assert!(open(&connections, "2001:db8::4").await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn proxies_have_no_limit_of_their_own() {
        let connections = connections(10, 1);
        let mut open_ones = Vec::new();
        for _ in 0..5 {
            open_ones.push(open(&connections, "10.1.2.3").await.unwrap());
        }
        assert!(!open_ones.iter().any(is_closing));
    }

    #[tokio::test(start_paused = true)]
    async fn closed_connections_do_not_count() {
        let connections = connections(2, 2);
        for _ in 0..10 {
            drop(open(&connections, "192.0.2.1").await.unwrap());
        }
        let table = connections.lock();
        assert!(table.by_id.is_empty() && table.by_address.is_empty());
    }
}
