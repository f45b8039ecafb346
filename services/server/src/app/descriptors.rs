//! File descriptors of this process: raises their limit, and divides them between client
//! connections and everything else. If clients could use all of them, the pools could not
//! reconnect, and probes would fail.

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Maximum number of client connections. It bounds memory, because each connection can
/// hold a header buffer and a body.
const MAX_CLIENTS: u64 = 8_192;

/// Connections of the admin listener: probes, metrics and operators.
pub(super) const MAX_ADMIN_CONNECTIONS: usize = 128;

/// Descriptors for everything that [`client_connections`] does not name: the other pools,
/// Redis, NATS, listeners, files, and connections that are being closed.
const RESERVE: u64 = 160;

/// Fewest client connections with which the service starts.
const MIN_CLIENTS: u64 = 64;

/// Raises the soft limit of open files, at most to the hard limit. Shells and systemd start
/// processes with a soft limit of 1,024. `pools` is the maximum number of connections in
/// the pools for requests. Returns the limit; `None` if there is none.
pub(crate) fn raise_limit(pools: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Not simply the hard limit: macOS refuses an unlimited soft limit.
    let needed = MAX_CLIENTS + reserve(pools);
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    if current.is_none_or(|current| current >= raised) {
        return current;
    }
    let limit = Rlimit {
        current: Some(raised),
        maximum,
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => Some(raised),
        Err(error) => {
            tracing::warn!(
                %error,
                "raising the limit of open files failed: {error}; it stays {current:?}"
            );
            current
        }
    }
}

/// How many client connections fit in a limit of open files. `pools` is the maximum number
/// of connections in the pools for requests.
///
/// # Errors
/// If fewer than [`MIN_CLIENTS`] fit.
pub(super) fn client_connections(limit: Option<u64>, pools: u64) -> anyhow::Result<usize> {
    let Some(limit) = limit else {
        return Ok(usize::try_from(MAX_CLIENTS)?);
    };
    let reserve = reserve(pools);
    let clients = limit.saturating_sub(reserve).min(MAX_CLIENTS);
    ensure!(
        clients >= MIN_CLIENTS,
        "the limit of open files is {limit}; the service needs at least {}; raise it, for \
         example with `ulimit -n`",
        reserve + MIN_CLIENTS
    );
    Ok(usize::try_from(clients)?)
}

/// Descriptors that clients do not get.
fn reserve(pools: u64) -> u64 {
    RESERVE + pools + MAX_ADMIN_CONNECTIONS as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_descriptors_that_are_left() {
        let clients = |limit| client_connections(limit, 40).ok();
        assert_eq!(clients(Some(1_024)), Some(696));
        assert_eq!(clients(Some(1_048_576)), Some(8_192));
        assert_eq!(clients(None), Some(8_192));
        assert_eq!(clients(Some(392)), Some(64));
        let error = client_connections(Some(391), 40).unwrap_err().to_string();
        assert!(error.contains("needs at least 392"), "{error}");
    }
}
