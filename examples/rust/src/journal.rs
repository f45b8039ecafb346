//! What was counted, in a file that only grows: a line for each event. A line
//! that a kill cut short was not acknowledged, so its event comes again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::Path;

use uuid::Uuid;

use crate::event::Ended;

/// The sessions of a book.
#[derive(Default)]
pub struct Count {
    /// How many have ended.
    pub sessions: u64,
    /// How long they were open, in milliseconds.
    pub ms: i64,
}

/// The counts and their file.
pub struct Journal {
    file: File,
    counted: HashSet<String>,
    books: BTreeMap<Uuid, Count>,
}

impl Journal {
    /// Reads what was counted, and cuts off a line that is not whole.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let mut lines = BufReader::new(&mut file);
        let (mut counted, mut books) = (HashSet::new(), BTreeMap::new());
        let mut whole = 0;
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
            whole = lines.stream_position()?;
            line.clear();
        }
        file.set_len(whole)?;
        Ok(Self {
            file,
            counted,
            books,
        })
    }

    /// Counts events that were not counted before, and returns their books once
    /// that is on disk.
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

    /// What was counted, by book.
    pub fn books(&self) -> impl Iterator<Item = (&Uuid, &Count)> {
        self.books.iter()
    }
}

fn add(books: &mut BTreeMap<Uuid, Count>, event: &Ended) {
    let count = books.entry(event.book_id).or_default();
    count.sessions += 1;
    count.ms += event.elapsed_ms;
}
