//! How often somebody may call. Redis counts, so that all API processes share
//! one count; when Redis is away each process counts by itself, and nobody
//! waits for that or gets an error.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};
use domain::ReaderId;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use projections::cache::Cache;

mod shared_count;

use shared_count::SharedCount;

/// Calls that may be made in a window.
pub const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
/// Calls that are left.
pub const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// Seconds until more are left.
pub const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Local counts are tidied up after this many checks: who has not called for a
/// window is forgotten.
const TIDY_EVERY: u64 = 10_000;

/// How many calls each class may make in a sliding window.
#[derive(Clone, Debug)]
pub struct RateLimits {
    pub high_frequency: NonZeroU32,
    pub normal: NonZeroU32,
    pub low_frequency: NonZeroU32,
    pub auth: NonZeroU32,
    pub window: Duration,
    /// How long a request waits for Redis before this process counts by itself.
    pub deadline: Duration,
}

/// A class of calls that share a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Position updates.
    HighFrequency,
    /// Everything else that client apps do.
    Normal,
    /// What operators do, and what readers do once in a while.
    LowFrequency,
    /// Calls with no or a bad token.
    Auth,
}

impl Preset {
    const ALL: [Self; 4] = [
        Self::HighFrequency,
        Self::Normal,
        Self::LowFrequency,
        Self::Auth,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::HighFrequency => "high_frequency",
            Self::Normal => "normal",
            Self::LowFrequency => "low_frequency",
            Self::Auth => "auth",
        }
    }

    fn limit(self, limits: &RateLimits) -> NonZeroU32 {
        match self {
            Self::HighFrequency => limits.high_frequency,
            Self::Normal => limits.normal,
            Self::LowFrequency => limits.low_frequency,
            Self::Auth => limits.auth,
        }
    }
}

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// A reader, by a good token.
    Reader(ReaderId),
    /// Whoever calls from an address.
    Address(IpAddr),
}

impl Client {
    /// By address: of IPv6 the network, since one client has all of it
    /// (RFC 6177).
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => IpAddr::V4(v4),
                None => IpAddr::V6((u128::from(v6) & (u128::MAX << 64)).into()),
            },
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// Calls that may be made in a window.
    pub limit: u32,
    /// Calls that are left.
    pub remaining: u32,
    /// When more are left.
    pub reset: Duration,
    /// When the call may be made again, if it may not be made now.
    pub retry_after: Option<Duration>,
}

impl Permit {
    /// Tells the client.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, self.limit.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, whole_seconds(self.reset).into());
        if let Some(retry_after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(retry_after).into());
        }
    }

    /// Whole seconds until the call may be made again.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        whole_seconds(self.retry_after.unwrap_or_default())
    }
}

/// Rounded up: who comes back then is not refused again.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

type Local =
    RateLimiter<Client, DashMapStateStore<Client>, DefaultClock, StateInformationMiddleware>;

/// Counts calls.
pub struct Limiter {
    shared: SharedCount,
    window: Duration,
    limits: [NonZeroU32; 4],
    local: [Local; 4],
    clock: DefaultClock,
    checks: AtomicU64,
}

impl Limiter {
    /// Counts in `cache`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(settings: &RateLimits, cache: Cache) -> Self {
        let RateLimits {
            window, deadline, ..
        } = *settings;
        let limits = Preset::ALL.map(|preset| preset.limit(settings));
        let local = limits.map(|limit| {
            let every = (window / limit.get()).max(Duration::from_nanos(1));
            let quota = Quota::with_period(every)
                .expect("it is not zero")
                .allow_burst(limit);
            RateLimiter::dashmap(quota).with_middleware()
        });
        Self {
            shared: SharedCount::start(cache, window, deadline),
            window,
            limits,
            local,
            clock: DefaultClock::default(),
            checks: AtomicU64::new(0),
        }
    }

    /// Counts a call, if it may be made.
    pub async fn check(&self, preset: Preset, client: Client) -> Permit {
        let limit = self.limits[preset as usize].get();
        let key = match client {
            Client::Reader(id) => format!("rate_limit:{}:user:{id}", preset.name()),
            Client::Address(ip) => format!("rate_limit:{}:ip:{ip}", preset.name()),
        };
        match self.shared.count(key, limit).await {
            Some(counted) => Permit {
                limit,
                remaining: counted.remaining,
                reset: counted.reset,
                retry_after: (!counted.allowed).then_some(counted.reset),
            },
            None => self.check_here(preset, client),
        }
    }

    /// A leaky bucket (GCRA), which is what can be had in one process without
    /// remembering each call.
    fn check_here(&self, preset: Preset, client: Client) -> Permit {
        let local = &self.local[preset as usize];
        if self.checks.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            self.local.iter().for_each(Local::retain_recent);
        }
        let limit = self.limits[preset as usize].get();
        match local.check_key(&client) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                Permit {
                    limit,
                    remaining,
                    reset: self.window / limit * (limit - remaining.min(limit)),
                    retry_after: None,
                }
            }
            Err(not_yet) => {
                let wait = not_yet.wait_time_from(self.clock.now());
                Permit {
                    limit,
                    remaining: 0,
                    reset: wait,
                    retry_after: Some(wait),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_is_its_network() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::2:3"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.2"), at("10.0.0.1"));
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::ZERO), 0);
    }
}
