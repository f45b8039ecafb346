//! A record for each session, in an append-only file: each line contains a record, and
//! the last line of a session is valid. If a crash leaves a partial line, its event was
//! not acknowledged, so NATS delivers the event again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Change, Event};

/// The state of a session after its event `sequence`.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Record {
    sequence: u64,
    book_id: Uuid,
    /// The time of the start event. The first observation may precede it.
    started_at: DateTime<Utc>,
    first_at: DateTime<Utc>,
    /// `None` while the session is active.
    ended_at: Option<DateTime<Utc>>,
}

/// The totals of a book's ended sessions.
#[derive(Default)]
pub struct Totals {
    pub sessions: u64,
    /// Milliseconds from the starts to the ends of the sessions.
    pub ms: i64,
}

/// The records and totals in memory, and the file from which they are restored.
pub struct Journal {
    file: File,
    sessions: HashMap<Uuid, Record>,
    books: BTreeMap<Uuid, Totals>,
}

impl Journal {
    /// Restores the records from the file and truncates a partial last line.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut lines = BufReader::new(&mut file);
        let mut restored = Vec::new();
        // The length of the file up to its last complete line.
        let mut complete = 0;
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            restored.push(serde_json::from_str(&line)?);
            complete = lines.stream_position()?;
            line.clear();
        }
        file.set_len(complete)?;
        let mut journal = Self {
            file,
            sessions: HashMap::new(),
            books: BTreeMap::new(),
        };
        for (session, record) in restored {
            journal.set(session, record);
        }
        Ok(journal)
    }

    /// Records events and returns the books whose totals may have changed. The records
    /// are on disk when it returns.
    pub fn record(&mut self, events: Vec<Event>) -> anyhow::Result<BTreeSet<Uuid>> {
        let mut lines = Vec::new();
        let mut changed = BTreeSet::new();
        for event in events {
            let known = self.sessions.get(&event.session);
            let record = match next(known, &event) {
                Next::Skip => continue,
                Next::Delete => None,
                Next::Set(record) => Some(record),
            };
            changed.extend(known.or(record.as_ref()).map(|record| record.book_id));
            serde_json::to_writer(&mut lines, &(event.session, record))?;
            lines.push(b'\n');
            self.set(event.session, record);
        }
        self.write(&lines)?;
        Ok(changed)
    }

    /// Replaces the record of a session, and updates the totals.
    fn set(&mut self, session: Uuid, record: Option<Record>) {
        let earlier = match record {
            Some(record) => self.sessions.insert(session, record),
            None => self.sessions.remove(&session),
        };
        for (sign, record) in [(-1, earlier), (1, record)] {
            let Some(record) = record else { continue };
            let totals = self.books.entry(record.book_id).or_default();
            if let Some(ended_at) = record.ended_at {
                totals.sessions = totals.sessions.saturating_add_signed(sign);
                totals.ms += sign * (ended_at - record.first_at).num_milliseconds();
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.file.sync_data()
    }

    /// The totals by book.
    pub fn books(&self) -> impl Iterator<Item = (&Uuid, &Totals)> {
        self.books.iter()
    }
}

/// The effect of an event on the record of its session.
enum Next {
    Skip,
    Delete,
    Set(Record),
}

fn next(known: Option<&Record>, event: &Event) -> Next {
    let sequence = event.sequence;
    if !matches!(event.change, Change::Erased)
        && known.is_some_and(|known| sequence <= known.sequence)
    {
        return Next::Skip;
    }
    match (&event.change, known) {
        (Change::Erased, Some(_)) => Next::Delete,
        (
            Change::Started {
                book_id,
                started_at,
                active,
            },
            _,
        ) => Next::Set(Record {
            sequence,
            book_id: *book_id,
            started_at: *started_at,
            first_at: *started_at,
            ended_at: (!active).then_some(*started_at),
        }),
        // An update without a start: the session was erased, and its start is overwritten.
        (Change::Erased | Change::Updated { .. }, None) => Next::Skip,
        (
            Change::Updated {
                started_at,
                ended_at,
            },
            Some(known),
        ) => Next::Set(Record {
            sequence,
            first_at: started_at.unwrap_or(known.started_at),
            ended_at: *ended_at,
            ..*known
        }),
        (
            Change::Ended {
                book_id,
                started_at,
                ended_at,
            },
            known,
        ) => Next::Set(Record {
            sequence,
            book_id: *book_id,
            started_at: known.map_or(*started_at, |known| known.started_at),
            first_at: *started_at,
            ended_at: Some(*ended_at),
        }),
    }
}
