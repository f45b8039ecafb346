//! What is measured and how much of it.

use std::time::Duration;

use clap::ValueEnum;

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
    /// A replay, a warm-up, and readiness.
    Replay,
}

impl Part {
    /// As it is asked for, and what its database is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Updates => "updates",
            Self::Batch => "batch",
            Self::Active => "active",
            Self::Replay => "replay",
        }
    }

    /// As the table has it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Updates => "single updates, 256 connections, closed loop",
            Self::Batch => "batches of 50, 256 connections, closed loop",
            Self::Active => "active session, 256 connections, closed loop",
            Self::Replay => "replay of the history",
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
    /// Events replayed.
    pub replayed: u32,
}

/// A measurement.
pub const FULL: Plan = Plan {
    rounds: 3,
    length: Duration::from_secs(15),
    replayed: 5_000_000,
};

/// A look.
pub const QUICK: Plan = Plan {
    rounds: 1,
    length: Duration::from_secs(3),
    replayed: 500_000,
};
