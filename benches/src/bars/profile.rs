//! The bars that docs/profile.md explains, and the verdict on a run.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::Bar;

/// The section with an entry for each bar that is not met. The title of an entry is the key
/// of its bar.
const SECTION: &str = "## Bars that are not met";
const ENTRY: &str = "### `";

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
        let profile = include_str!("../../../docs/profile.md");
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
}
