//! The text of an entry.
//!
//! An entry is one string, so that Redis needs one command to read it and one to write
//! it. It has four lines:
//!
//! 1. the version, the session id, the sequence, the furthest position and the active
//!    time, with a space between two of them
//! 2. the latest observation, as JSON
//! 3. the first observation, as JSON; empty if it is the start
//! 4. the event `SessionStarted`, as JSON
//!
//! A version has 19 digits. An entry of a reader without an active session contains
//! only the version and `none`, and a tombstone only the version.
//!
//! The scripts depend on the width of the version and of the id, and on the order of
//! the lines. A write of the projection to an existing entry replaces its first lines:
//! the projection does not know the start.

use domain::session::{ProgressChange, SessionProgress, StartedSession};
use domain::{FirstObservation, Observation, Position, SessionId, SessionStarted};
use serde::Serialize;
use uuid::fmt::Hyphenated;

use super::CachedSession;

/// The number of digits of a version: enough for every global position.
const VERSION_WIDTH: usize = 19;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Active(Box<CachedSession>),
    /// The reader has no active session.
    Inactive,
    Tombstone,
    /// Not an entry. The next write replaces it.
    Invalid,
}

/// Decodes the version and the content of an entry. Only an invalid entry can lack a
/// version.
pub(super) fn decode(text: &[u8]) -> (Option<i64>, Content) {
    let Some((version, rest)) = split_version(text) else {
        return (None, Content::Invalid);
    };
    let content = match rest {
        "" => Content::Tombstone,
        " none" => Content::Inactive,
        _ => decode_session(rest)
            .map_or(Content::Invalid, |cached| Content::Active(Box::new(cached))),
    };
    (Some(version), content)
}

fn split_version(text: &[u8]) -> Option<(i64, &str)> {
    let (version, rest) = str::from_utf8(text).ok()?.split_at_checked(VERSION_WIDTH)?;
    Some((version.parse().ok()?, rest))
}

/// Decodes the text after the version.
fn decode_session(text: &str) -> Option<CachedSession> {
    let mut lines = text.splitn(4, '\n');
    let mut numbers = lines.next()?.strip_prefix(' ')?.split(' ');
    let id = numbers.next().filter(|id| id.len() == Hyphenated::LENGTH)?;
    let sequence = numbers.next()?.parse().ok()?;
    let furthest_position = Position::from_steps(numbers.next()?.parse().ok()?).ok()?;
    let active_ms = numbers.next()?.parse().ok()?;
    let latest: Observation = serde_json::from_str(lines.next()?).ok()?;
    let first: Option<FirstObservation> = match lines.next()? {
        "" => None,
        first => Some(serde_json::from_str(first).ok()?),
    };
    Some(CachedSession {
        session_id: id.parse().ok()?,
        sequence,
        session: StartedSession {
            start: serde_json::from_str(lines.next()?).ok()?,
            progress: SessionProgress {
                latest,
                first,
                furthest_position,
                active_ms,
                // A correction ends the session.
                active_fixed: false,
                ended: None,
            },
        },
    })
}

/// A whole entry of an active session.
pub(super) fn entry(
    version: i64,
    id: SessionId,
    sequence: i64,
    progress: &ProgressChange,
    start: &SessionStarted,
) -> String {
    let lines = merge(version, id, sequence, progress);
    format!("{lines}\n{}", json(start))
}

/// The first two lines of an entry, if the other ones stay as they are.
pub(super) fn update(
    version: i64,
    id: SessionId,
    sequence: i64,
    progress: &ProgressChange,
) -> Option<String> {
    let latest = progress
        .latest
        .as_ref()
        .filter(|_| progress.first.is_none())?;
    let head = head(version, id, sequence, progress);
    Some(format!("{head}\n{}", json(latest)))
}

/// The first three lines of an entry. An observation that stays as it is is an empty
/// line.
pub(super) fn merge(
    version: i64,
    id: SessionId,
    sequence: i64,
    progress: &ProgressChange,
) -> String {
    let head = head(version, id, sequence, progress);
    let latest = progress.latest.as_ref().map(json).unwrap_or_default();
    let first = progress.first.as_ref().map(json).unwrap_or_default();
    format!("{head}\n{latest}\n{first}")
}

fn head(version: i64, id: SessionId, sequence: i64, progress: &ProgressChange) -> String {
    let head = version_and_id(version, id);
    let furthest = progress.furthest_position.steps();
    format!("{head} {sequence} {furthest} {}", progress.active_ms)
}

pub(super) fn version_and_id(version: i64, id: SessionId) -> String {
    format!("{} {id}", tombstone(version))
}

pub(super) fn inactive(version: i64) -> String {
    format!("{} none", tombstone(version))
}

pub(super) fn tombstone(version: i64) -> String {
    format!("{version:0VERSION_WIDTH$}")
}

/// Compact JSON, which contains no line break.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("events and observations are plain JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, at, session};

    /// The start of a session, and its progress.
    fn start_and_progress() -> (SessionStarted, ProgressChange) {
        let event = Story::starts(1, "Europe/Berlin", 0)
            .events()
            .remove(0)
            .event;
        let progress = event.progress_change().unwrap();
        let domain::SessionEvent::SessionStarted(start) = event else {
            panic!("{event:?}")
        };
        (start, progress)
    }

    #[test]
    fn entry_contains_the_session() {
        let (start, mut progress) = start_and_progress();
        let latest = progress.latest.as_mut().unwrap();
        latest.locator = Some("chapter 1\nverse 2".to_owned());
        progress.active_ms = 1_234;
        progress.first = Some(FirstObservation {
            at: at(-5),
            position: Position::START,
        });
        for first in [None, progress.first] {
            progress.first = first;
            let text = entry(i64::MAX, session(1), 7, &progress, &start);
            let (version, content) = decode(text.as_bytes());
            assert_eq!(version, Some(i64::MAX));
            let Content::Active(cached) = content else {
                panic!("{content:?}")
            };
            assert_eq!((cached.session_id, cached.sequence), (session(1), 7));
            assert_eq!(cached.session.start, start);
            let found = &cached.session.progress;
            assert_eq!(Some(&found.latest), progress.latest.as_ref());
            assert_eq!((found.first, found.active_ms), (first, 1_234));
        }
    }

    #[test]
    fn update_is_the_beginning_of_the_entry() {
        let (start, mut progress) = start_and_progress();
        let entry = entry(5, session(1), 7, &progress, &start);
        let update = update(5, session(1), 7, &progress).unwrap();
        assert!(entry.starts_with(&(update + "\n\n")), "{entry}");
        progress.latest = None;
        assert_eq!(super::update(5, session(1), 7, &progress), None);
        let merge = merge(5, session(1), 7, &progress);
        assert!(merge.ends_with("\n\n"), "{merge}");
    }

    #[test]
    fn entries_without_a_session_contain_a_version() {
        assert_eq!(decode(inactive(5).as_bytes()), (Some(5), Content::Inactive));
        assert_eq!(
            decode(tombstone(0).as_bytes()),
            (Some(0), Content::Tombstone)
        );
    }

    #[test]
    fn damaged_entries_are_invalid() {
        let (start, progress) = start_and_progress();
        let whole = entry(5, session(1), 7, &progress, &start);
        for end in [0, 1, 18, 20, 30, 56, 60, whole.len() - 1] {
            let (_, content) = decode(&whole.as_bytes()[..end]);
            assert_eq!(content, Content::Invalid, "{end}");
        }
        assert_eq!(decode(b"\xff"), (None, Content::Invalid));
    }
}
