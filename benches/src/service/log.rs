//! The log of the service's processes.

use std::path::PathBuf;

use anyhow::Context;
use dev_servers::Servers;

/// Lines of the service's log that are printed after a failure.
const LOG_LINES: usize = 10;

/// The file for the log of the service.
pub fn log_path(servers: &Servers) -> anyhow::Result<PathBuf> {
    let folder = servers.nats.dir().and_then(std::path::Path::parent);
    let folder = folder.context("the servers have no data folder")?;
    Ok(folder.join("service.log"))
}

/// Prints the last lines of the service's log, after a failure.
#[expect(clippy::print_stdout, reason = "the program prints its progress")]
pub fn print_log_tail(servers: &Servers) {
    let log = log_path(servers).and_then(|log| Ok(std::fs::read_to_string(log)?));
    let lines: Vec<&str> = log.iter().flat_map(|log| log.lines()).collect();
    for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
        println!("        {line}");
    }
}
