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
    /// Batches of 10 updates.
    #[value(name = "batch-10")]
    Batch10,
    /// Batches of 25 updates.
    #[value(name = "batch-25")]
    Batch25,
    /// Batches of 50 updates.
    #[value(name = "batch-50")]
    Batch50,
    /// Reads of active sessions.
    Active,
    /// Pages of a long history.
    History,
    /// A thousand readers with one update per second each.
    Steady,
    /// The scenario of the original service's load test.
    Original,
    /// Four API processes behind nginx, compared with one.
    Processes,
    /// Updates with traces, compared with none.
    Traces,
    /// Sizes of responses with and without compression.
    Responses,
    /// Memory of Redis with 1,000 to 100,000 active sessions.
    RedisMemory,
    /// A replay, a cache warm-up, and the time until the service is ready.
    Replay,
    /// Five times as many updates as the service can process.
    Overload,
    /// Costs of an update with growing logs and sessions.
    Growth,
    /// The first build of `make run`, and a build after a change of one line.
    Build,
}

impl Part {
    /// The name in `--only`.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The name of the database, which is also the prefix in NATS.
    pub fn database(self) -> String {
        self.name().replace('-', "_")
    }

    /// The name in the table of the report.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Updates => "single updates, 256 connections, closed loop",
            Self::Late => "CPU time of an update, one in ten arrives 30 s late",
            Self::Batch10 => "batches of 10, 256 connections, closed loop",
            Self::Batch25 => "batches of 25, 256 connections, closed loop",
            Self::Batch50 => "batches of 50, 256 connections, closed loop",
            Self::Active => "active session, 256 connections, closed loop",
            Self::History => "history, page 500",
            Self::Steady => "1,000 readers, one update per second each, open loop",
            Self::Original => "scenario of the original",
            Self::Processes => "CPU time of an update, four API processes behind nginx",
            Self::Traces => "CPU time of an update, default sampling of traces",
            Self::Responses => "response size",
            Self::RedisMemory => "Redis memory",
            Self::Replay => "replay of the history",
            Self::Overload => "overload, 5 times the capacity, open loop",
            Self::Growth => "growth",
            Self::Build => "first build of `make run`",
        }
    }

    /// Whether the part is measured in rounds with the other saturation parts.
    pub const fn is_saturation(self) -> bool {
        self.batch_size().is_some() || matches!(self, Self::Updates | Self::Late | Self::Active)
    }

    /// Positions in a batch. `None` for parts without batches.
    pub const fn batch_size(self) -> Option<usize> {
        match self {
            Self::Batch10 => Some(10),
            Self::Batch25 => Some(25),
            Self::Batch50 => Some(50),
            _ => None,
        }
    }
}

/// The extent of a run.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Parts that are measured only with `--only`.
    pub left_out: &'static [Part],
    /// Rounds of the saturation parts.
    pub rounds: usize,
    /// Length of each load in a round.
    pub length: Duration,
    /// Readers with a long history.
    pub history_readers: usize,
    /// Length of the part with one update per second. Each reader must send fewer than
    /// 60 updates, because the rate limit allows 60 per minute.
    pub steady: Duration,
    /// Length of the load during which starts, ends and queries are measured.
    pub probes: Duration,
    /// Numbers of users in the scenario of the original, and the length of each run.
    pub users: &'static [(usize, Duration)],
    /// Numbers of active sessions for which the memory of Redis is measured, ascending.
    pub cached: &'static [u32],
    /// Events in the log of the replay.
    pub replayed: u32,
    /// Length of the overload.
    pub overload: Duration,
    pub growth: Extent,
}

/// A full measurement.
pub const FULL: Plan = Plan {
    left_out: &[],
    rounds: 3,
    length: Duration::from_secs(10),
    history_readers: 10,
    steady: Duration::from_secs(61),
    probes: Duration::from_secs(30),
    users: &[
        (100, Duration::from_mins(5)),
        (120, Duration::from_mins(1)),
        (1_000, Duration::from_mins(1)),
    ],
    cached: &[1_000, 10_000, 100_000],
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
    left_out: &[
        Part::Batch10,
        Part::Batch25,
        Part::Processes,
        Part::Traces,
        Part::RedisMemory,
        Part::Growth,
        Part::Build,
    ],
    rounds: 1,
    length: Duration::from_secs(3),
    history_readers: 2,
    steady: Duration::from_secs(6),
    probes: Duration::from_secs(4),
    users: &[(100, Duration::from_secs(5)), (120, Duration::from_secs(5))],
    cached: &[1_000, 10_000, 100_000],
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
