//! The names of streams and subjects on NATS. Only this module contains them.

use domain::ReaderId;

/// The number of partitions. All events of a reader are in one partition, so a
/// consumer of one partition receives them in order. Another number would move
/// readers to other partitions.
pub const PARTITIONS: u32 = 8;

/// The names that one installation uses. Several installations can share a NATS
/// server if each has its own prefix.
#[derive(Clone, Debug)]
pub struct Subjects {
    stream: String,
    root: String,
    wake: String,
    flush: String,
    cursor_stream: String,
    cursors: String,
    dead_letter_stream: String,
    dead_letters: String,
}

impl Subjects {
    /// `prefix` may be empty: then the names are those of `docs/reference/events.md`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        if prefix.is_empty() {
            return Self {
                stream: "READING".to_owned(),
                root: "reading.sessions".to_owned(),
                wake: "reading.wake".to_owned(),
                flush: "reading.flush".to_owned(),
                cursor_stream: "READING_CURSOR".to_owned(),
                cursors: "reading.cursor".to_owned(),
                dead_letter_stream: "READING_DEAD".to_owned(),
                dead_letters: "reading.dead".to_owned(),
            };
        }
        Self {
            stream: format!("{}_READING", prefix.to_uppercase()),
            root: format!("{prefix}.reading.sessions"),
            wake: format!("{prefix}.reading.wake"),
            flush: format!("{prefix}.reading.flush"),
            cursor_stream: format!("{}_READING_CURSOR", prefix.to_uppercase()),
            cursors: format!("{prefix}.reading.cursor"),
            dead_letter_stream: format!("{}_READING_DEAD", prefix.to_uppercase()),
            dead_letters: format!("{prefix}.reading.dead"),
        }
    }

    /// The name of the stream of events.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The subject filter that matches all events.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}.>", self.root)
    }

    /// The subject that notifies relays of new events. No stream stores it, and a
    /// message may be lost: the relay also polls the log.
    #[must_use]
    pub fn wake(&self) -> &str {
        &self.wake
    }

    /// The subject of requests to write the rows of a reader in a projection, or of all
    /// projections for `*`. No stream stores them.
    #[must_use]
    pub fn flush(&self, projection: &str) -> String {
        format!("{}.{projection}", self.flush)
    }

    /// The name of the stream that contains the relay's cursor.
    #[must_use]
    pub fn cursor_stream(&self) -> &str {
        &self.cursor_stream
    }

    /// The subject of the relay's cursor, or for `>` the subject filter of its stream.
    ///
    /// The filter has a wildcard, because NATS delivers the messages of a push consumer to a
    /// stream with a literal subject. A consumer could then overwrite the cursor.
    #[must_use]
    pub fn cursor(&self, name: &str) -> String {
        format!("{}.{name}", self.cursors)
    }

    /// The name of the stream of dead letters.
    #[must_use]
    pub fn dead_letter_stream(&self) -> &str {
        &self.dead_letter_stream
    }

    /// The subject of a projection's dead letters, or of all dead letters for `>`.
    #[must_use]
    pub fn dead_letter(&self, projection: &str) -> String {
        format!("{}.{projection}", self.dead_letters)
    }

    /// The subject of an event.
    #[must_use]
    pub fn event(&self, event_type: &str, reader_id: ReaderId) -> String {
        format!(
            "{}.{}.p{}",
            self.root,
            short_name(event_type),
            partition(reader_id)
        )
    }
}

/// The name of an event in subjects and CloudEvents types: `PositionUpdated` becomes
/// `position_updated`, and `SessionStarted` becomes `started`. Characters that a
/// subject does not allow become underscores.
#[must_use]
pub fn short_name(event_type: &str) -> String {
    let name = event_type.strip_prefix("Session").unwrap_or(event_type);
    let mut short = String::with_capacity(name.len() + 2);
    for (i, character) in name.char_indices() {
        if character.is_ascii_uppercase() && i > 0 {
            short.push('_');
        }
        short.push(if character.is_ascii_alphanumeric() {
            character.to_ascii_lowercase()
        } else {
            '_'
        });
    }
    if short.is_empty() {
        "_".to_owned()
    } else {
        short
    }
}

/// The partition of a reader: FNV-1a (32 bit; Fowler, Noll, Vo) over the 16 bytes of
/// the UUID, modulo [`PARTITIONS`]. Consumers can compute it in any language.
#[must_use]
pub fn partition(reader_id: ReaderId) -> u32 {
    let hash = reader_id
        .uuid()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    hash % PARTITIONS
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::uuid;

    #[test]
    fn subjects_without_prefix_have_the_documented_names() {
        let reader = ReaderId::from(uuid!("00000000-0000-0000-0000-000000000000"));
        let subjects = Subjects::new("");
        assert_eq!(
            domain::SessionEvent::NAMES.map(|event_type| subjects.event(event_type, reader)),
            [
                "reading.sessions.started.p5",
                "reading.sessions.position_updated.p5",
                "reading.sessions.ended.p5",
                "reading.sessions.erased.p5"
            ]
        );
    }

    #[test]
    fn short_names_contain_only_subject_characters() {
        for (name, short) in [
            ("SessionPaused", "paused"),
            ("Session", "_"),
            ("", "_"),
            ("a.b >*é", "a_b____"),
        ] {
            assert_eq!(short_name(name), short);
        }
    }

    #[test]
    fn readers_are_spread_evenly_over_partitions() {
        let mut seen = [0; PARTITIONS as usize];
        for n in 0..8_000_u128 {
            seen[partition(ReaderId::from(uuid::Uuid::from_u128(n * 7_919))) as usize] += 1;
        }
        assert!(
            seen.iter().all(|count| (700..1_300).contains(count)),
            "{seen:?}"
        );
    }
}
