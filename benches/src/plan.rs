//! What is measured and how much of it.

use std::time::Duration;

use clap::ValueEnum;

use crate::growth::Extent;

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[repr(u8)]
pub enum Part {
    /// Single updates.
    Updates,
    /// Batches of updates.
    Batch,
    /// Reads of active sessions.
    Active,
    /// Pages of a long history.
    History,
    /// A thousand readers, an update a second each.
    Steady,
    /// The users of the original's load test.
    Original,
    /// A replay, a warm-up, and readiness.
    Replay,
    /// Far more updates than the service can do.
    Overload,
    /// Logs and sessions that grow.
    Growth,
}

impl Part {
    /// As it is asked for, and what its database is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Updates => "updates",
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

    /// As the table has it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Updates => "single updates, 256 connections, closed loop",
            Self::Batch => "batches of 50, 256 connections, closed loop",
            Self::Active => "active session, 256 connections, closed loop",
            Self::History => "history, page 500",
            Self::Steady => "1,000 readers, an update a second each, open loop",
            Self::Original => "the original's scenario",
            Self::Replay => "replay of the history",
            Self::Overload => "overload, 5 times the capacity, open loop",
            Self::Growth => "growth",
        }
    }

    /// Whether it is one of the loads that take turns in rounds.
    pub const fn is_saturation(self) -> bool {
        matches!(self, Self::Updates | Self::Batch | Self::Active)
    }
}

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Of the loads that take turns with their references.
    pub rounds: usize,
    /// Of each load in a round.
    pub length: Duration,
    /// Readers with a long history.
    pub history_readers: usize,
    /// How long readers update once a second; a reader's updates must stay below
    /// sixty, whatever the pace.
    pub steady: Duration,
    /// Users of the original's load test, and for how long.
    pub users: [(usize, Duration); 2],
    /// Events replayed.
    pub replayed: u32,
    /// How long the service gets more than it can do.
    pub overload: Duration,
    /// How large log and sessions grow.
    pub growth: Extent,
}

/// A measurement.
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

/// A look.
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
