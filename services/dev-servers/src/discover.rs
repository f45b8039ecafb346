//! Finds servers that are installed on this machine, and checks their versions.
//! Installs nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::child_guard::clear_environment;
use super::os_user::OsUser;
use super::server_kind::ServerKind;

/// The value `fetched` ignores installed servers, so that the tests run against the
/// downloaded versions.
const SERVERS_VARIABLE: &str = "READING_SESSIONS_SERVERS";

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

    /// Parses the leading numbers of a text such as `17.2`, `2.12.0-RC.1` or `18beta1`.
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

/// The executable of a server.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Without symbolic links, because Postgres loads its other files relative to
    /// this path.
    pub path: PathBuf,
    /// `Postgres`, `NATS`, `Redis` or `Valkey`.
    pub product: &'static str,
    pub version: Version,
}

impl Binary {
    /// Product and version, for display.
    pub fn title(&self) -> String {
        format!("{} {}", self.product, self.version)
    }

    /// Runs an executable with `--version`, as the user that the server will run as,
    /// because that user must have access to it. Returns `None` if this fails.
    pub fn probe(kind: ServerKind, path: &Path, os_user: Option<&OsUser>) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        if kind == ServerKind::Postgres && !path.with_file_name("initdb").exists() {
            return None;
        }
        let mut command = Command::new(&path);
        command.arg("--version").current_dir("/");
        clear_environment(&mut command);
        let os_user = os_user.filter(|_| kind == ServerKind::Postgres);
        let output = OsUser::run_as(os_user, &mut command).output().ok()?;
        let (product, version) = parse_version(kind, &String::from_utf8_lossy(&output.stdout))?;
        Some(Self {
            path,
            product,
            version,
        })
    }
}

/// The first supported executable that is installed on this machine.
pub fn find(kind: ServerKind, os_user: Option<&OsUser>) -> Option<Binary> {
    if std::env::var(SERVERS_VARIABLE).is_ok_and(|value| value == "fetched") {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|p| p.is_absolute())
        .collect();
    if kind == ServerKind::Postgres {
        // Debian, Red Hat and Homebrew install it outside of PATH.
        for (parent, prefix) in [
            ("/usr/lib/postgresql", ""),
            ("/usr", "pgsql-"),
            ("/opt/homebrew/opt", "postgresql@"),
            ("/usr/local/opt", "postgresql@"),
            ("/home/linuxbrew/.linuxbrew/opt", "postgresql@"),
        ] {
            dirs.extend(newest_first(Path::new(parent), prefix).map(|dir| dir.join("bin")));
        }
    }
    let common = [
        "/opt/homebrew/bin",
        "/usr/local/bin",
        "/home/linuxbrew/.linuxbrew/bin",
        "/usr/sbin",
    ];
    dirs.extend(common.map(PathBuf::from));
    dirs.iter()
        .flat_map(|dir| kind.executables().iter().map(move |name| dir.join(name)))
        .filter(|path| path.is_file())
        .filter_map(|path| Binary::probe(kind, &path, os_user))
        .find(|binary| binary.version >= kind.min_version(binary.product))
}

/// The directories in `parent` that are named `prefix` and a version.
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

/// Product and version in the output of `--version`.
fn parse_version(kind: ServerKind, output: &str) -> Option<(&'static str, Version)> {
    let prefixes: &[(&str, &str)] = match kind {
        ServerKind::Postgres => &[("Postgres", "(PostgreSQL) ")],
        ServerKind::Nats => &[("NATS", "nats-server: v")],
        ServerKind::Redis => &[("Valkey", "Valkey server v="), ("Redis", "Redis server v=")],
    };
    prefixes.iter().find_map(|(product, prefix)| {
        let (_, rest) = output.split_once(prefix)?;
        Some((*product, Version::parse(rest.split_whitespace().next()?)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_output_of_each_server_is_parsed() {
        for (kind, output, expected) in [
            (
                ServerKind::Postgres,
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                "Postgres 15.18",
            ),
            (
                ServerKind::Postgres,
                "postgres (PostgreSQL) 18beta1\n",
                "Postgres 18.0",
            ),
            (ServerKind::Nats, "nats-server: v2.15.1\n", "NATS 2.15.1"),
            (ServerKind::Nats, "nats-server: v2.12.0-RC.4\n", "NATS 2.12"),
            (
                ServerKind::Redis,
                "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0\n",
                "Redis 7.0.15",
            ),
            (
                ServerKind::Redis,
                "Valkey server v=9.1.2 sha=00000000:1 malloc=libc\n",
                "Valkey 9.1.2",
            ),
        ] {
            let (product, version) = parse_version(kind, output).unwrap();
            assert_eq!(format!("{product} {version}"), expected);
        }
        assert_eq!(parse_version(ServerKind::Nats, "command not found"), None);
        assert_eq!(parse_version(ServerKind::Redis, "Valkey server v="), None);
    }

    #[test]
    fn old_versions_are_rejected() {
        let supported = |kind: ServerKind, output: &str| {
            let (product, version) = parse_version(kind, output).unwrap();
            version >= kind.min_version(product)
        };
        assert!(supported(ServerKind::Redis, "Redis server v=7.0.0"));
        assert!(!supported(ServerKind::Redis, "Redis server v=6.2.14"));
        assert!(!supported(ServerKind::Redis, "Valkey server v=7.2.5"));
        assert!(!supported(ServerKind::Nats, "nats-server: v2.9.10"));
        assert!(supported(ServerKind::Nats, "nats-server: v2.11.0"));
        assert!(!supported(
            ServerKind::Postgres,
            "postgres (PostgreSQL) 14.20"
        ));
    }

    #[test]
    fn directories_are_sorted_by_version_number() {
        let dir = std::env::temp_dir().join(format!("versions-{}", uuid::Uuid::new_v4().simple()));
        for name in ["9", "15", "18", "README"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let names: Vec<PathBuf> = newest_first(&dir, "").collect();
        assert_eq!(names, ["18", "15", "9"].map(|name| dir.join(name)));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
