//! Finds servers that the machine has, and asks each for its version. Installs
//! nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::os_user::Account;
use super::server_kind::Kind;
use super::child_guard::only_needed_environment;

/// Set to `fetched` to pass over the machine's own servers, so that the same
/// tests can be run against other versions.
const CHOICE: &str = "READING_SESSIONS_SERVERS";

/// The version of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// The leading numbers of a text such as `17.2`, `2.12.0-RC.1` or `18beta1`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.splitn(3, '.').map(|part| {
            let end = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            part[..end].parse().ok()
        });
        let major = numbers.next()??;
        let minor = numbers.next().flatten().unwrap_or(0);
        Some(Self::new(
            major,
            minor,
            numbers.next().flatten().unwrap_or(0),
        ))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)
        } else {
            Ok(())
        }
    }
}

/// An executable that was asked for its version.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The executable, without symbolic links: Postgres looks for the rest of
    /// itself beside it.
    pub path: PathBuf,
    /// What it says it is: `Redis` and `Valkey` are one kind.
    pub product: &'static str,
    pub version: Version,
}

impl Binary {
    /// Product and version, for people.
    pub fn title(&self) -> String {
        format!("{} {}", self.product, self.version)
    }

    /// Runs an executable for its version, as the account that it will run
    /// under: that one must be able to reach it.
    pub fn ask(kind: Kind, path: &Path, account: Option<&Account>) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        if kind == Kind::Postgres && !path.with_file_name("initdb").exists() {
            return None;
        }
        let mut command = Command::new(&path);
        command.arg("--version").current_dir("/");
        only_needed_environment(&mut command);
        let account = account.filter(|_| kind == Kind::Postgres);
        let output = Account::lend(account, &mut command).output().ok()?;
        let (product, version) = version_of(kind, &String::from_utf8_lossy(&output.stdout))?;
        Some(Self {
            path,
            product,
            version,
        })
    }
}

/// The first good enough executable of the machine, if there is one.
pub fn find(kind: Kind, account: Option<&Account>) -> Option<Binary> {
    if std::env::var(CHOICE).is_ok_and(|choice| choice == "fetched") {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|p| p.is_absolute())
        .collect();
    if kind == Kind::Postgres {
        // Debian and Red Hat keep the server outside of PATH, Homebrew too.
        for (parent, prefix) in [
            ("/usr/lib/postgresql", ""),
            ("/usr", "pgsql-"),
            ("/opt/homebrew/opt", "postgresql@"),
            ("/usr/local/opt", "postgresql@"),
            ("/home/linuxbrew/.linuxbrew/opt", "postgresql@"),
        ] {
            folders
                .extend(newest_first(Path::new(parent), prefix).map(|folder| folder.join("bin")));
        }
    }
    let usual = [
        "/opt/homebrew/bin",
        "/usr/local/bin",
        "/home/linuxbrew/.linuxbrew/bin",
        "/usr/sbin",
    ];
    folders.extend(usual.map(PathBuf::from));
    folders
        .iter()
        .flat_map(|folder| kind.executables().iter().map(move |name| folder.join(name)))
        .filter(|path| path.is_file())
        .filter_map(|path| Binary::ask(kind, &path, account))
        .find(|binary| binary.version >= kind.oldest(binary.product))
}

/// The folders in `parent` that are named after versions.
fn newest_first(parent: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut versions: Vec<(Version, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = Version::parse(name.to_str()?.strip_prefix(prefix)?)?;
            Some((version, entry.path()))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, path)| path)
}

/// Product and version from what `--version` prints.
fn version_of(kind: Kind, output: &str) -> Option<(&'static str, Version)> {
    let marks: &[(&str, &str)] = match kind {
        Kind::Postgres => &[("Postgres", "(PostgreSQL) ")],
        Kind::Nats => &[("NATS", "nats-server: v")],
        Kind::Redis => &[("Valkey", "Valkey server v="), ("Redis", "Redis server v=")],
    };
    marks.iter().find_map(|(product, mark)| {
        let (_, rest) = output.split_once(mark)?;
        Some((*product, Version::parse(rest.split_whitespace().next()?)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_each_server_prints_them() {
        for (kind, output, expected) in [
            (
                Kind::Postgres,
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                "Postgres 15.18",
            ),
            (
                Kind::Postgres,
                "postgres (PostgreSQL) 18beta1\n",
                "Postgres 18.0",
            ),
            (Kind::Nats, "nats-server: v2.15.1\n", "NATS 2.15.1"),
            (Kind::Nats, "nats-server: v2.12.0-RC.4\n", "NATS 2.12"),
            (
                Kind::Redis,
                "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0\n",
                "Redis 7.0.15",
            ),
            (
                Kind::Redis,
                "Valkey server v=9.1.2 sha=00000000:1 malloc=libc\n",
                "Valkey 9.1.2",
            ),
        ] {
            let (product, version) = version_of(kind, output).unwrap();
            assert_eq!(format!("{product} {version}"), expected);
        }
        assert_eq!(version_of(Kind::Nats, "command not found"), None);
        assert_eq!(version_of(Kind::Redis, "Valkey server v="), None);
    }

    #[test]
    fn old_versions_are_not_good_enough() {
        let good = |kind: Kind, output: &str| {
            let (product, version) = version_of(kind, output).unwrap();
            version >= kind.oldest(product)
        };
        assert!(good(Kind::Redis, "Redis server v=7.0.0"));
        assert!(!good(Kind::Redis, "Redis server v=6.2.14"));
        assert!(!good(Kind::Redis, "Valkey server v=7.2.5"));
        assert!(!good(Kind::Nats, "nats-server: v2.9.10"));
        assert!(good(Kind::Nats, "nats-server: v2.11.0"));
        assert!(!good(Kind::Postgres, "postgres (PostgreSQL) 14.20"));
    }

    #[test]
    fn the_newest_folder_comes_first_by_number() {
        let folder =
            std::env::temp_dir().join(format!("versions-{}", uuid::Uuid::new_v4().simple()));
        for name in ["9", "15", "18", "README"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let names: Vec<PathBuf> = newest_first(&folder, "").collect();
        assert_eq!(names, ["18", "15", "9"].map(|name| folder.join(name)));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
