//! Refuses passwords in arguments, which every user of a machine can read in the
//! process list.

use api::secret::Secret;
use clap::ArgMatches;
use clap::parser::ValueSource;

/// The arguments with an address, and their environment variables.
const ADDRESSES: [(&str, &str); 6] = [
    ("database_url", "DATABASE_URL"),
    ("database_read_url", "DATABASE_READ_URL"),
    ("nats_url", "NATS_URL"),
    ("redis_url", "REDIS_URL"),
    ("jwks_url", "JWKS_URL"),
    ("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
];

/// Returns an error text if an address on the command line contains a password.
pub fn check(matches: &ArgMatches) -> Result<(), String> {
    for (id, variable) in ADDRESSES {
        let Ok(Some(address)) = matches.try_get_one::<Secret>(id) else {
            continue;
        };
        let is_argument = matches.value_source(id) == Some(ValueSource::CommandLine);
        if is_argument && contains_secret(address.expose()) {
            return Err(format!(
                "--{} contains a password or a token, which all users of this machine can read in \
                 the process list; set the environment variable {variable} instead",
                id.replace('_', "-")
            ));
        }
    }
    match matches.subcommand() {
        Some((_, matches)) => check(matches),
        None => Ok(()),
    }
}

/// Whether an address contains a password or a token. NATS takes a user name without a
/// password as a token.
fn contains_secret(address: &str) -> bool {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let in_user = rest.rsplit_once('@').is_some_and(|(user, _)| {
        user.contains(':') || !matches!(scheme, "postgres" | "postgresql" | "redis" | "rediss")
    });
    in_user || address.to_ascii_lowercase().contains("password=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_found() {
        for address in [
            "postgres://reading:s3cr3t@db/reading",
            "postgres://reading:s3cr/t@db/reading",
            "postgres://db/reading?user=reading&password=s3cr3t",
            "postgres://reading@db/reading?sslPassword=s3cr3t",
            "nats://reading:s3cr3t@nats:4222",
            "nats://s3cr3t@nats:4222",
            "reading:s3cr3t@nats:4222",
            "nats://one:4222,nats://reading:s3cr3t@two:4222",
            "redis://:s3cr3t@cache:6379/0",
            "https://user:s3cr3t@issuer.example/keys",
        ] {
            assert!(contains_secret(address), "{address}");
        }
    }

    #[test]
    fn other_addresses_are_accepted() {
        for address in [
            "postgres://db/reading",
            "postgres://reading@db:5432/reading?sslmode=verify-full",
            "nats://one:4222,nats://two:4222",
            "rediss://cache:6379/0",
            "https://issuer.example/keys",
        ] {
            assert!(!contains_secret(address), "{address}");
        }
    }
}
