//! An append-only file with one line for each counted event. If a crash leaves a
//! partial line, its event was not acknowledged, so NATS delivers the event again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::Path;

use uuid::Uuid;

use crate::event::Ended;

/// The totals of a book's finished sessions.
#[derive(Default)]
pub struct Totals {
    pub sessions: u64,
    /// Milliseconds for which the sessions were open.
    pub ms: i64,
}

/// The totals in memory, and the file from which they are restored.
pub struct Journal {
    file: File,
    /// The ids of all counted events.
    counted: HashSet<String>,
    books: BTreeMap<Uuid, Totals>,
}

impl Journal {
    /// Restores the totals from the file and truncates a partial last line.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut lines = BufReader::new(&mut file);
        let (mut counted, mut books) = (HashSet::new(), BTreeMap::new());
        // The length of the file up to its last complete line.
        let mut complete = 0;
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            let (id, book_id, elapsed_ms) = serde_json::from_str(&line)?;
            let event = Ended {
                id,
                book_id,
                elapsed_ms,
            };
            add(&mut books, &event);
            counted.insert(event.id);
            complete = lines.stream_position()?;
            line.clear();
        }
        file.set_len(complete)?;
        Ok(Self {
            file,
            counted,
            books,
        })
    }

    /// Counts new events and returns the books whose totals changed. The events are
    /// on disk when it returns.
    pub fn count(&mut self, events: Vec<Ended>) -> anyhow::Result<BTreeSet<Uuid>> {
        let mut lines = Vec::new();
        let mut changed = BTreeSet::new();
        for event in events {
            if !self.counted.insert(event.id.clone()) {
                continue;
            }
            let line = (&event.id, event.book_id, event.elapsed_ms);
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
            add(&mut self.books, &event);
            changed.insert(event.book_id);
        }
        self.write(&lines)?;
        Ok(changed)
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

fn add(books: &mut BTreeMap<Uuid, Totals>, event: &Ended) {
    let totals = books.entry(event.book_id).or_default();
    totals.sessions += 1;
    totals.ms += event.elapsed_ms;
}
