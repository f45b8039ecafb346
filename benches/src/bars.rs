//! The bars: limits that figures of the report must meet. A missed bar needs an entry in
//! docs/profile.md that explains it, or else the run exits with an error.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, ensure};
use clap::ValueEnum;

/// The section of docs/profile.md with an entry for each bar that is not met. The title
/// of an entry is the key of its bar.
const SECTION: &str = "## Bars that are not met";
const ENTRY: &str = "### `";

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

/// The bars that docs/profile.md explains.
///
/// # Errors
/// If the section is missing, or an entry has no text or names no bar.
pub fn explained(profile: &str) -> anyhow::Result<BTreeSet<Bar>> {
    let mut lines = profile.lines().skip_while(|line| *line != SECTION).skip(1);
    let section: Vec<&str> = lines
        .by_ref()
        .take_while(|line| !line.starts_with("## "))
        .collect();
    ensure!(
        profile.lines().any(|line| line == SECTION),
        "the profile has no section `{SECTION}`"
    );
    let mut explained = BTreeSet::new();
    for (n, line) in section.iter().enumerate() {
        let Some(title) = line.strip_prefix(ENTRY) else {
            continue;
        };
        let key = title.split('`').next().unwrap_or_default();
        let bar = Bar::from_str(key, false);
        let bar = bar
            .ok()
            .with_context(|| format!("no bar has the key {key}"))?;
        let mut text = section[n + 1..].iter().filter(|line| !line.is_empty());
        ensure!(
            text.next().is_some_and(|line| !line.starts_with("###")),
            "the entry {key} of the profile has no text"
        );
        explained.insert(bar);
    }
    Ok(explained)
}

/// The end of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Missed bars with an entry in the profile.
    pub explained: Vec<Bar>,
    /// Missed bars without one.
    pub unexplained: Vec<Bar>,
    /// Bars with an entry that are met.
    pub outdated: Vec<Bar>,
}

impl Verdict {
    pub fn new(measured: impl IntoIterator<Item = (Bar, bool)>, explained: &BTreeSet<Bar>) -> Self {
        let mut verdict = Self::default();
        for (bar, is_met) in measured {
            match (is_met, explained.contains(&bar)) {
                (true, true) => verdict.outdated.push(bar),
                (true, false) => {}
                (false, true) => verdict.explained.push(bar),
                (false, false) => verdict.unexplained.push(bar),
            }
        }
        verdict
    }

    /// The lines that end the output of a run.
    pub fn text(&self, profile: &str) -> String {
        let mut text = String::new();
        let mut list = |what: &str, bars: &[Bar]| {
            if !bars.is_empty() {
                let keys: Vec<String> = bars.iter().map(|bar| bar.key()).collect();
                let _ = writeln!(text, "{what}: {}", keys.join(", "));
            }
        };
        list(
            &format!("bars that are not met, explained in {profile}"),
            &self.explained,
        );
        list(
            &format!("bars that are met, with an entry in {profile}"),
            &self.outdated,
        );
        list(
            &format!("bars that are not met, without an entry in {profile}"),
            &self.unexplained,
        );
        if text.is_empty() {
            text.push_str("all measured bars are met\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "# Profile\n\n### `active`\n\nNot in the section.\n\n\
        ## Bars that are not met\n\n### `updates`\n\n0.73 in place of 1.5.\n\n\
        ### `batch-50`\nThe relay.\n\n## Next steps\n\n### `late`\n\nNot in the section.\n";

    #[test]
    fn entries_of_the_section_explain_their_bars() {
        let bars = explained(PROFILE).unwrap();
        assert_eq!(bars, BTreeSet::from([Bar::Updates, Bar::Batch50]));
    }

    #[test]
    fn an_entry_without_text_explains_nothing() {
        let profile = "## Bars that are not met\n\n### `updates`\n\n### `late`\n\nText.\n";
        let error = explained(profile).unwrap_err().to_string();
        assert_eq!(error, "the entry updates of the profile has no text");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = explained("## Bars that are not met\n\n### `update`\n\nText.\n");
        assert_eq!(error.unwrap_err().to_string(), "no bar has the key update");
    }

    #[test]
    fn a_profile_without_the_section_is_an_error() {
        assert!(explained("# Profile\n").is_err());
    }

    #[test]
    fn the_profile_of_the_repository_names_existing_bars() {
        let profile = include_str!("../../docs/profile.md");
        explained(profile).unwrap();
    }

    #[test]
    fn a_verdict_separates_missed_bars_by_their_entries() {
        let measured = [
            (Bar::Updates, false),
            (Bar::Late, false),
            (Bar::History, true),
            (Bar::Batch50, true),
        ];
        let verdict = Verdict::new(measured, &BTreeSet::from([Bar::Updates, Bar::Batch50]));
        assert_eq!(
            verdict,
            Verdict {
                explained: vec![Bar::Updates],
                unexplained: vec![Bar::Late],
                outdated: vec![Bar::Batch50],
            }
        );
        assert_eq!(
            verdict.text("profile.md"),
            "bars that are not met, explained in profile.md: updates\n\
             bars that are met, with an entry in profile.md: batch-50\n\
             bars that are not met, without an entry in profile.md: late\n"
        );
    }

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
