//! Subjects, partitions and names on NATS; spelled nowhere else.

use domain::ReaderId;

/// How many partitions events are spread over. A consumer that takes one
/// partition sees all events of its readers, in order. Changing the number
/// moves readers between partitions.
pub const PARTITIONS: u32 = 8;

/// The names of one installation. Several may share a NATS server, each with
/// its own prefix; without one the names are those of the public contract.
#[derive(Clone, Debug)]
pub struct Subjects {
    stream: String,
    root: String,
    wake: String,
    dead_letter_stream: String,
    dead_letters: String,
}

impl Subjects {
    /// Names with a prefix; none when it is empty.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        if prefix.is_empty() {
            return Self {
                stream: "READING".to_owned(),
                root: "reading.sessions".to_owned(),
                wake: "reading.wake".to_owned(),
                dead_letter_stream: "READING_DEAD".to_owned(),
                dead_letters: "reading.dead".to_owned(),
            };
        }
        Self {
            stream: format!("{}_READING", prefix.to_uppercase()),
            root: format!("{prefix}.reading.sessions"),
            wake: format!("{prefix}.reading.wake"),
            dead_letter_stream: format!("{}_READING_DEAD", prefix.to_uppercase()),
            dead_letters: format!("{prefix}.reading.dead"),
        }
    }

    /// The name of the stream.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// All events.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}.>", self.root)
    }

    /// Where the relay is told that there is something new. Outside the
    /// stream, and may be lost: the relay also looks by itself.
    #[must_use]
    pub fn wake(&self) -> &str {
        &self.wake
    }

    /// The name of the stream of dead letters.
    #[must_use]
    pub fn dead_letter_stream(&self) -> &str {
        &self.dead_letter_stream
    }

    /// The subject of a projection's dead letters; of all, with `>`.
    #[must_use]
    pub fn dead_letter(&self, projection: &str) -> String {
        format!("{}.{projection}", self.dead_letters)
    }

    /// The subject of one event.
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

/// The event's name in subjects and types: `PositionUpdated` is
/// `position_updated`, and the session goes without saying. What a subject does
/// not take becomes an underscore.
#[must_use]
pub fn short_name(event_type: &str) -> String {
    let name = event_type.strip_prefix("Session").unwrap_or(event_type);
    let mut short = String::with_capacity(name.len() + 2);
    for (i, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && i > 0 {
            short.push('_');
        }
        let plain = letter.is_ascii_alphanumeric();
        short.push(if plain {
            letter.to_ascii_lowercase()
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

/// A reader's partition, by FNV-1a (32 bit; Fowler, Noll, Vo) over the bytes
/// of the UUID: stable, and easy to write again in any language.
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
    fn subjects_are_those_of_the_contract() {
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
    fn every_name_is_good_for_a_subject() {
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
    fn readers_spread_over_all_partitions() {
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
