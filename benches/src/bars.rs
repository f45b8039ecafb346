//! The bars: limits that figures of the report must meet. A missed bar needs an entry in
//! docs/profile.md that explains it, or else the run exits with an error.

use clap::ValueEnum;

mod profile;

pub use profile::{Verdict, explained};

/// The longest time for which the service holds a position back from history and
/// statistics, in seconds: the default of `COALESCE_WINDOW`.
pub const COALESCE_WINDOW: f64 = 15.0;

/// A figure with a limit. The name of the variant in kebab case is the key of the bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Bar {
    /// Updates per second at saturation ÷ rows per second of pgbench.
    Updates,
    /// Time until the projections have caught up after saturation.
    UpdatesCatchUp,
    /// Resident memory at saturation.
    UpdatesMemory,
    /// CPU time of an update with one late observation in ten ÷ without.
    Late,
    /// Positions per second in batches of 50 ÷ rows per second of pgbench.
    #[value(name = "batch-50")]
    Batch50,
    /// Reads of active sessions per second ÷ responses of an empty handler.
    Active,
    /// Share of reads of active sessions that Redis serves at saturation.
    ActiveHits,
    /// Median latency of page 500 ÷ page 1.
    History,
    /// p99 of an update at one update per second of each reader.
    Steady,
    /// p99 of the time from the log to Redis.
    SteadyRedis,
    /// Rows that projections write per update.
    SteadyRows,
    /// WAL bytes per update ÷ per row of pgbench.
    SteadyWal,
    /// p99 of the time until a start or an end is in the history.
    StartEnd,
    /// Longest time until a position is in history and statistics.
    Position,
    /// p99 of a query with `min_position` of the command before it.
    MinPosition,
    OriginalP95,
    OriginalP99,
    OriginalErrors,
    /// Share of reads of active sessions that Redis serves.
    OriginalHits,
    /// p99 of the wait for a Postgres connection at 120 users.
    PoolWait,
    /// CPU time of an update with four API processes ÷ with one.
    ApiProcesses,
    /// CPU time of an update with the default sampling of traces ÷ without traces.
    Traces,
    /// Events per second of a replay ÷ rows per second of pgbench.
    Replay,
    ReplayMemory,
    /// Sessions per second of a warm-up.
    WarmUp,
    /// Time from the start of the process until it is ready.
    Ready,
    /// Updates served in an overload ÷ the capacity.
    OverloadServed,
    /// p99 of rejections in an overload.
    OverloadRejections,
    OverloadMemory,
    /// Time until latencies are normal after an overload.
    OverloadRecovery,
    /// CPU time of an update with a large log ÷ with a small one.
    GrowthLog,
    /// CPU time of an update of a long session ÷ of a short one.
    GrowthSession,
    /// Minutes of the first build of `make run`.
    FirstBuild,
    /// Seconds of a build after a change of one line.
    Rebuild,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    AtLeast,
    AtMost,
    Below,
}

impl Bar {
    #[expect(clippy::match_same_arms, reason = "an arm for each part of the run")]
    const fn limit(self) -> (Sign, f64, &'static str) {
        use Sign::{AtLeast, AtMost, Below};
        match self {
            Self::Updates => (AtLeast, 1.5, ""),
            Self::UpdatesCatchUp => (AtMost, 2.0, "s"),
            Self::UpdatesMemory => (AtMost, 200.0, "MB"),
            Self::Late => (AtMost, 1.3, ""),
            Self::Batch50 => (AtLeast, 0.75, ""),
            Self::Active => (AtLeast, 0.35, ""),
            Self::ActiveHits | Self::OriginalHits => (AtLeast, 95.0, "%"),
            Self::History => (AtMost, 1.2, ""),
            Self::Steady => (AtMost, 10.0, "ms"),
            Self::SteadyRedis => (AtMost, 50.0, "ms"),
            Self::SteadyRows => (AtMost, 0.15, ""),
            Self::SteadyWal => (AtMost, 1.5, ""),
            Self::StartEnd | Self::MinPosition => (AtMost, 300.0, "ms"),
            Self::Position => (AtMost, COALESCE_WINDOW + 1.0, "s"),
            Self::OriginalP95 => (AtMost, 5.0, "ms"),
            Self::OriginalP99 => (AtMost, 10.0, "ms"),
            Self::OriginalErrors => (AtMost, 0.0, ""),
            Self::PoolWait => (Below, 10.0, "ms"),
            Self::ApiProcesses => (AtMost, 1.2, ""),
            Self::Traces => (AtMost, 1.1, ""),
            Self::Replay => (AtLeast, 15.0, ""),
            Self::ReplayMemory => (AtMost, 300.0, "MB"),
            // 100,000 sessions in ten seconds.
            Self::WarmUp => (AtLeast, 10_000.0, "/s"),
            Self::Ready => (AtMost, 1.0, "s"),
            // Rejections and the generator use the same cores.
            Self::OverloadServed => (AtLeast, 0.5, ""),
            Self::OverloadRejections => (AtMost, 1_000.0, "ms"),
            // Twice the limit at saturation.
            Self::OverloadMemory => (AtMost, 400.0, "MB"),
            Self::OverloadRecovery => (AtMost, 5.0, "s"),
            Self::GrowthLog | Self::GrowthSession => (AtMost, 1.2, ""),
            Self::FirstBuild => (AtMost, 8.0, "min"),
            Self::Rebuild => (AtMost, 30.0, "s"),
        }
    }

    pub fn is_met(self, value: f64) -> bool {
        match self.limit() {
            (Sign::AtLeast, limit, _) => value >= limit,
            (Sign::AtMost, limit, _) => value <= limit,
            (Sign::Below, limit, _) => value < limit,
        }
    }

    /// The limit with its sign and unit.
    pub fn text(self) -> String {
        let (sign, limit, unit) = self.limit();
        let sign = match sign {
            Sign::AtLeast => "≥",
            Sign::AtMost => "≤",
            Sign::Below => "<",
        };
        let space = if unit.is_empty() || unit.starts_with('/') {
            ""
        } else {
            " "
        };
        format!("{sign} {limit}{space}{unit}")
    }

    /// The stable name in docs/profile.md.
    pub fn key(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_include_their_value_unless_they_are_below() {
        assert!(Bar::Updates.is_met(1.5) && !Bar::Updates.is_met(1.49));
        assert!(Bar::Late.is_met(1.3) && !Bar::Late.is_met(1.31));
        assert!(Bar::PoolWait.is_met(9.9) && !Bar::PoolWait.is_met(10.0));
        assert!(!Bar::Updates.is_met(f64::NAN) && !Bar::Late.is_met(f64::NAN));
    }

    #[test]
    fn a_limit_is_written_with_its_sign_and_unit() {
        assert_eq!(Bar::PoolWait.text(), "< 10 ms");
        assert_eq!(Bar::WarmUp.text(), "≥ 10000/s");
        assert_eq!(Bar::Position.text(), "≤ 16 s");
        assert_eq!(Bar::SteadyRows.text(), "≤ 0.15");
    }
}
