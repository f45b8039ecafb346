//! Rate limits, and the daily budget of stored bytes. Redis counts requests and bytes, so
//! that all API processes share one count. While Redis is unavailable, each process counts
//! alone, and no request fails.

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};
use domain::ReaderId;
use eventlog::stored_bytes::{StorageMeter, StoredBytes};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use projections::cache::Cache;

mod shared_count;

pub use shared_count::Prefetched;
use shared_count::{Limits, SharedCount, StorageCheck};

/// The number of requests that a window allows.
pub const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
/// The number of requests that are left.
pub const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// Seconds until more requests are left.
pub const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Local counts of clients without requests in the last window are removed once per
/// this many checks.
const CHECKS_PER_CLEANUP: u64 = 10_000;

/// The settings: the number of requests that each preset allows in a sliding window.
#[derive(Clone, Debug)]
pub struct RateLimits {
    pub high_frequency: NonZeroU32,
    pub normal: NonZeroU32,
    pub low_frequency: NonZeroU32,
    pub sync: NonZeroU32,
    pub auth: NonZeroU32,
    pub window: Duration,
    /// How long a request waits for Redis before this process counts alone.
    pub deadline: Duration,
    /// The bytes that the commands of a reader may store in
    /// [`eventlog::stored_bytes::BUDGET_PERIOD`]; `None` for any number.
    pub daily_bytes: Option<NonZeroU64>,
}

/// A class of requests that share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Position updates.
    HighFrequency,
    /// Other requests of client apps.
    Normal,
    /// Requests of operators, and rare requests of readers such as exports.
    LowFrequency,
    /// Uploads of whole sessions.
    Sync,
    /// Requests without a valid token.
    Auth,
}

impl Preset {
    const ALL: [Self; 5] = [
        Self::HighFrequency,
        Self::Normal,
        Self::LowFrequency,
        Self::Sync,
        Self::Auth,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::HighFrequency => "high_frequency",
            Self::Normal => "normal",
            Self::LowFrequency => "low_frequency",
            Self::Sync => "sync",
            Self::Auth => "auth",
        }
    }

    fn limit(self, limits: &RateLimits) -> NonZeroU32 {
        match self {
            Self::HighFrequency => limits.high_frequency,
            Self::Normal => limits.normal,
            Self::LowFrequency => limits.low_frequency,
            Self::Sync => limits.sync,
            Self::Auth => limits.auth,
        }
    }
}

/// The owner of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// The reader that a valid token names.
    Reader(ReaderId),
    /// Every client with this address or network.
    Address(IpAddr),
}

impl ClientKey {
    /// IPv6 addresses of one /64 network share a count, because one client usually
    /// has a whole network (RFC 6177).
    #[must_use]
    pub fn from_address(address: IpAddr) -> Self {
        Self::Address(address_or_network(address))
    }
}

/// An IPv4 address, or the /64 network of an IPv6 address.
pub(crate) fn address_or_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The check of a reader's request.
#[derive(Clone, Copy)]
pub struct ReaderCheck {
    pub preset: Preset,
    /// Whether the request is checked against the reader's budget of stored bytes.
    pub is_command: bool,
    /// The key in Redis that the request needs next. It is read in the same round trip.
    pub prefetch: Option<fn(ReaderId) -> String>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitDecision {
    /// The number of requests that a window allows.
    pub limit: u32,
    /// The number of requests that are left.
    pub remaining: u32,
    /// The time until more requests are left.
    pub reset: Duration,
    /// The time until the request may be repeated; `None` if it is allowed now.
    pub retry_after: Option<Duration>,
    /// The time until the reader's budget of stored bytes renews; `None` if the request is
    /// no command, or the budget is not used up.
    pub budget_renews_in: Option<Duration>,
}

impl RateLimitDecision {
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, self.limit.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, whole_seconds(self.reset).into());
        if let Some(retry_after) = self.retry_after.or(self.budget_renews_in) {
            headers.insert(header::RETRY_AFTER, whole_seconds(retry_after).into());
        }
    }

    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        whole_seconds(
            self.retry_after
                .or(self.budget_renews_in)
                .unwrap_or_default(),
        )
    }
}

/// Rounds up, so that a client that waits this long is not rejected again.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

type LocalLimiter =
    RateLimiter<ClientKey, DashMapStateStore<ClientKey>, DefaultClock, StateInformationMiddleware>;

/// Counts requests. Arrays have one element per [`Preset`].
pub struct Limiter {
    shared: SharedCount,
    stored: StoredBytes,
    daily_bytes: Option<NonZeroU64>,
    window: Duration,
    limits: [NonZeroU32; 5],
    local: [LocalLimiter; 5],
    clock: DefaultClock,
    /// The number of local checks, for [`CHECKS_PER_CLEANUP`].
    local_checks: AtomicU64,
}

impl Limiter {
    /// # Panics
    /// Panics outside a Tokio runtime.
    #[must_use]
    pub fn new(settings: &RateLimits, cache: Cache) -> Self {
        let RateLimits {
            window,
            deadline,
            daily_bytes,
            ..
        } = *settings;
        let limits = Preset::ALL.map(|preset| preset.limit(settings));
        let local = limits.map(|limit| {
            let period = (window / limit.get()).max(Duration::from_nanos(1));
            let quota = Quota::with_period(period)
                .expect("the period is not zero")
                .allow_burst(limit);
            RateLimiter::dashmap(quota).with_middleware()
        });
        let stored = StoredBytes::default();
        Self {
            shared: SharedCount::start(
                cache,
                Limits {
                    window,
                    daily_bytes,
                    deadline,
                },
                stored.clone(),
            ),
            stored,
            daily_bytes,
            window,
            limits,
            local,
            clock: DefaultClock::default(),
            local_checks: AtomicU64::new(0),
        }
    }

    /// Records what the reader's commands store. `None` if there is no budget.
    #[must_use]
    pub fn meter(&self, reader_id: ReaderId) -> Option<StorageMeter> {
        self.daily_bytes.map(|_| self.stored.meter(reader_id))
    }

    /// Decides whether a request is allowed. Only allowed requests are counted.
    pub async fn check(&self, preset: Preset, client: ClientKey) -> RateLimitDecision {
        self.decide(preset, client, None, None, None).await.0
    }

    /// Like [`Limiter::check`], and counts the bytes that the reader has stored since the
    /// last call. Returns the value to prefetch too, or `None` if the request has to read
    /// it itself.
    pub async fn check_reader(
        &self,
        reader_id: ReaderId,
        check: ReaderCheck,
    ) -> (RateLimitDecision, Option<Prefetched>) {
        let ReaderCheck {
            preset,
            is_command,
            prefetch,
        } = check;
        let budget = self.daily_bytes.filter(|_| is_command);
        let taken = self.daily_bytes.and_then(|_| self.stored.take(reader_id));
        let storage =
            (budget.is_some() || taken.is_some()).then(|| StorageCheck { reader_id, taken });
        let client = ClientKey::Reader(reader_id);
        let prefetch = prefetch.map(|key| key(reader_id));
        self.decide(preset, client, storage, budget, prefetch).await
    }

    async fn decide(
        &self,
        preset: Preset,
        client: ClientKey,
        storage: Option<StorageCheck>,
        budget: Option<NonZeroU64>,
        prefetch: Option<String>,
    ) -> (RateLimitDecision, Option<Prefetched>) {
        let limit = self.limits[preset as usize].get();
        let key = match client {
            ClientKey::Reader(id) => format!("rate_limit:{}:user:{id}", preset.as_str()),
            ClientKey::Address(ip) => format!("rate_limit:{}:ip:{ip}", preset.as_str()),
        };
        let counted = self.shared.count(key, limit, storage, prefetch).await;
        let Some((count, prefetched)) = counted else {
            return (self.check_locally(preset, client, budget), None);
        };
        let decision = RateLimitDecision {
            limit,
            remaining: count.remaining,
            reset: count.reset,
            retry_after: (!count.allowed).then_some(count.reset),
            budget_renews_in: count.budget_renews_in.filter(|_| budget.is_some()),
        };
        (decision, prefetched)
    }

    /// A leaky bucket (GCRA): it approximates the sliding window with one timestamp
    /// per client.
    fn check_locally(
        &self,
        preset: Preset,
        client: ClientKey,
        budget: Option<NonZeroU64>,
    ) -> RateLimitDecision {
        let budget_renews_in = match (client, budget) {
            (ClientKey::Reader(id), Some(budget)) => self.stored.renews_in(id, budget.get()),
            _ => None,
        };
        let local = &self.local[preset as usize];
        let checks = self.local_checks.fetch_add(1, Ordering::Relaxed);
        if checks % CHECKS_PER_CLEANUP == CHECKS_PER_CLEANUP - 1 {
            self.local.iter().for_each(LocalLimiter::retain_recent);
        }
        let limit = self.limits[preset as usize].get();
        match local.check_key(&client) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                RateLimitDecision {
                    limit,
                    remaining,
                    reset: self.window / limit * (limit - remaining.min(limit)),
                    retry_after: None,
                    budget_renews_in,
                }
            }
            Err(not_yet) => {
                let wait = not_yet.wait_time_from(self.clock.now());
                RateLimitDecision {
                    limit,
                    remaining: 0,
                    reset: wait,
                    retry_after: Some(wait),
                    budget_renews_in,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_of_one_network_share_a_count() {
        let key = |text: &str| ClientKey::from_address(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::2:3"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.2"), key("10.0.0.1"));
    }

    #[test]
    fn durations_are_rounded_up_to_seconds() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::ZERO), 0);
    }
}
