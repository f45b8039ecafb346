//! The machine's copy of the time zone database: a directory with a file for each time
//! zone, in the format of RFC 9636.
//!
//! The directory may be damaged, or replaced while it is read. This module skips what it
//! cannot use, follows symbolic links, and never blocks on a file that is not regular.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::{MAX_NAME, is_excluded, version};

/// `America/Argentina/Buenos_Aires` has three parts.
const MAX_DEPTH: usize = 3;

/// Further copies of the whole database, `right` with leap seconds.
const SKIPPED_DIRECTORIES: [&str; 2] = ["posix", "right"];

/// The largest file that is read, in bytes. Files of the database have less than 4 kB.
const MAX_FILE: u64 = 65_536;

/// The most files that are read. The database has about 600.
const MAX_FILES: usize = 4_096;

/// How often the directory is read if its version changes meanwhile.
const MAX_ATTEMPTS: usize = 3;

pub(super) struct Directory {
    path: PathBuf,
    version: String,
    /// Ordered by name without regard to case.
    zones: Vec<(String, Arc<[u8]>)>,
}

impl Directory {
    /// Reads all files. Returns `None` if the directory states no version, has no usable
    /// file, or changes all the time.
    pub(super) fn read(path: &Path) -> Option<Self> {
        for _ in 0..MAX_ATTEMPTS {
            let version = version::of_directory(path)?;
            let mut files = Files::default();
            files.read(&path.canonicalize().ok()?, "", 1);
            // A package manager may be replacing the files.
            if version::of_directory(path).as_ref() == Some(&version) {
                let zones = files.sorted();
                return (!zones.is_empty()).then(|| Self {
                    path: path.to_owned(),
                    version,
                    zones,
                });
            }
        }
        None
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The name of a time zone, in the case of its file.
    pub(super) fn name(&self, name: &str) -> Option<&str> {
        self.zone(name).map(|(name, _)| name.as_str())
    }

    pub(super) fn time_zone(&self, name: &str) -> Option<TimeZone> {
        let (name, data) = self.zone(name)?;
        TimeZone::tzif(name, data).ok()
    }

    fn zone(&self, name: &str) -> Option<&(String, Arc<[u8]>)> {
        let name = name.to_ascii_lowercase();
        let found = self
            .zones
            .binary_search_by(|(zone, _)| zone.to_ascii_lowercase().cmp(&name));
        found.ok().map(|index| &self.zones[index])
    }
}

#[derive(Default)]
struct Files {
    zones: Vec<(String, Arc<[u8]>)>,
    /// Each content once: links are files with the content of their target.
    contents: HashSet<Arc<[u8]>>,
}

impl Files {
    /// Reads the files in `directory`, a path without symbolic links. `prefix` is the part
    /// of their names that comes from the directories above.
    fn read(&mut self, directory: &Path, prefix: &str, depth: usize) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let Some(part) = file_name.to_str().filter(|part| is_name_part(part)) else {
                continue;
            };
            let name = format!("{prefix}{part}");
            let Ok(path) = entry.path().canonicalize() else {
                continue;
            };
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                let is_skipped = depth == 1 && SKIPPED_DIRECTORIES.contains(&part);
                // A symbolic link to the directory itself or to one above.
                let is_loop = directory.starts_with(&path);
                if depth < MAX_DEPTH && !is_skipped && !is_loop {
                    self.read(&path, &format!("{name}/"), depth + 1);
                }
            } else if metadata.is_file() && metadata.len() <= MAX_FILE {
                self.read_file(&path, name);
            }
        }
    }

    fn read_file(&mut self, path: &Path, name: String) {
        if name.len() > MAX_NAME || is_excluded(&name) || self.zones.len() >= MAX_FILES {
            return;
        }
        let Ok(data) = fs::read(path) else {
            return;
        };
        let content = match self.contents.get(data.as_slice()) {
            Some(content) => Arc::clone(content),
            // A file of another kind, or a damaged one.
            None if TimeZone::tzif(&name, &data).is_err() => return,
            None => {
                let content: Arc<[u8]> = data.into();
                self.contents.insert(Arc::clone(&content));
                content
            }
        };
        self.zones.push((name, content));
    }

    fn sorted(self) -> Vec<(String, Arc<[u8]>)> {
        let mut zones = self.zones;
        // The first of several names that differ only in their case is kept.
        zones.sort_by(|(a, _), (b, _)| {
            (a.to_ascii_lowercase(), a).cmp(&(b.to_ascii_lowercase(), b))
        });
        zones.dedup_by(|(b, _), (a, _)| a.eq_ignore_ascii_case(b));
        zones
    }
}

/// Whether a file or directory can be a part of a name, such as `Port-au-Prince` or
/// `GMT+12`. Files with a dot are lists and other data.
fn is_name_part(part: &str) -> bool {
    part.starts_with(|first: char| first.is_ascii_alphabetic())
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+'))
}
