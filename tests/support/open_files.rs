//! The limits of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of this process to its hard limit. Shells and systemd start
/// processes with a soft limit of 1,024.
///
/// # Panics
/// If the kernel does not permit it.
pub fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("a process may use its hard limit");
}

/// The soft limit of a process.
///
/// # Panics
/// If there is no such process, or it has no limit.
#[must_use]
pub fn soft_limit(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().next());
    limit
        .and_then(|limit| limit.parse().ok())
        .expect("a number")
}
