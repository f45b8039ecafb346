//! The parts of a run, and how much each of them measures.

use std::time::Duration;

use clap::ValueEnum;

use crate::growth::Extent;

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[repr(u8)]
pub enum Part {
    /// Single updates.
    Updates,
    /// Single updates, of which one in ten arrives late.
    Late,
    /// Batches of updates.
    Batch,
    /// Reads of active sessions.
    Active,
    /// Pages of a long history.
    History,
    /// A thousand readers with one update per second each.
    Steady,
    /// The scenario of the original service's load test.
    Original,
    /// A replay, a cache warm-up, and the time until the service is ready.
    Replay,
    /// Five times as many updates as the service can process.
    Overload,
    /// Costs of an update with growing logs and sessions.
    Growth,
}

impl Part {
    /// The name in `--only`, and of the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Updates => "updates",
            Self::Late => "late",
            Self::Batch => "batch",
            Self::Active => "active",
            Self::History => "history",
            Self::Steady => "steady",
            Self::Original => "original",
            Self::Replay => "replay",
            Self::Overload => "overload",
            Self::Growth => "growth",
        }
    }

    /// The name in the table of the report.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Updates => "single updates, 256 connections, closed loop",
            Self::Late => "CPU time of an update, one in ten arrives 30 s late",
            Self::Batch => "batches of 50, 256 connections, closed loop",
            Self::Active => "active session, 256 connections, closed loop",
            Self::History => "history, page 500",
            Self::Steady => "1,000 readers, one update per second each, open loop",
            Self::Original => "scenario of the original",
            Self::Replay => "replay of the history",
            Self::Overload => "overload, 5 times the capacity, open loop",
            Self::Growth => "growth",
        }
    }

    /// Whether the part is measured in rounds with the other saturation parts.
    pub const fn is_saturation(self) -> bool {
        matches!(
            self,
            Self::Updates | Self::Late | Self::Batch | Self::Active
        )
    }
}

/// The extent of a run.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Rounds of the saturation parts.
    pub rounds: usize,
    /// Length of each load in a round.
    pub length: Duration,
    /// Readers with a long history.
    pub history_readers: usize,
    /// Length of the part with one update per second. Each reader must send fewer than
    /// 60 updates, because the rate limit allows 60 per minute.
    pub steady: Duration,
    /// Numbers of users in the scenario of the original, and the length of each run.
    pub users: [(usize, Duration); 2],
    /// Events in the log of the replay.
    pub replayed: u32,
    /// Length of the overload.
    pub overload: Duration,
    pub growth: Extent,
}

/// A full measurement.
pub const FULL: Plan = Plan {
    rounds: 3,
    length: Duration::from_secs(15),
    history_readers: 10,
    steady: Duration::from_secs(51),
    users: [
        (100, Duration::from_mins(5)),
        (1_000, Duration::from_secs(90)),
    ],
    replayed: 5_000_000,
    overload: Duration::from_secs(15),
    growth: Extent {
        sizes: &[10_000, 1_000_000, 10_000_000],
        long: 10_000,
        groups: 3,
        readers: 300,
        pgbench: Duration::from_secs(3),
    },
};

/// A short run with rough figures.
pub const QUICK: Plan = Plan {
    rounds: 1,
    length: Duration::from_secs(3),
    history_readers: 2,
    steady: Duration::from_secs(7),
    users: [
        (100, Duration::from_secs(5)),
        (1_000, Duration::from_secs(5)),
    ],
    replayed: 300_000,
    overload: Duration::from_secs(4),
    growth: Extent {
        sizes: &[10_000, 150_000],
        long: 1_000,
        groups: 1,
        readers: 90,
        pgbench: Duration::from_secs(1),
    },
};
