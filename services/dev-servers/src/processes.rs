//! The process table: lists processes, sends signals and waits for exits. It reads
//! `/proc`, or runs `ps` on a machine without `/proc`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A row of the process table.
struct Process {
    pid: u32,
    parent: u32,
    zombie: bool,
}

/// The children of a process, without zombies.
pub fn children(parent: u32) -> Vec<u32> {
    let living = table()
        .into_iter()
        .filter(|process| process.parent == parent && !process.zombie);
    living.map(|process| process.pid).collect()
}

/// Sends a signal. A missing process is no error, because a process can exit at any
/// moment.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// The command and its arguments; `None` if the process has exited or is a zombie.
pub fn command_line(pid: u32) -> Option<String> {
    let line = if Path::new("/proc/self/cmdline").exists() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&line).replace('\0', " ")
    } else {
        let pid = pid.to_string();
        let ps = Command::new("ps")
            .args(["-ww", "-o", "command=", "-p", &pid])
            .output()
            .ok()?;
        String::from_utf8_lossy(&ps.stdout).into_owned()
    };
    // The line of a zombie is empty.
    (!line.trim().is_empty()).then_some(line)
}

/// Waits until all these processes have exited. Returns `false` after `timeout`. A
/// zombie counts as exited, because its parent may never collect it.
pub fn wait_until_gone(pids: &[u32], timeout: Duration) -> bool {
    let started = Instant::now();
    loop {
        // A process without a command line is a zombie or a kernel thread.
        if pids.iter().all(|pid| command_line(*pid).is_none()) {
            return true;
        }
        if started.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn table() -> Vec<Process> {
    if let (true, Ok(entries)) = (
        Path::new("/proc/self/stat").exists(),
        std::fs::read_dir("/proc"),
    ) {
        let stats = entries.filter_map(|entry| {
            let stat = entry.ok()?.path().join("stat");
            std::fs::read_to_string(stat).ok()
        });
        return stats.filter_map(|stat| parse_stat(&stat)).collect();
    }
    let Ok(ps) = Command::new("ps")
        .args(["-A", "-o", "pid=,ppid=,state="])
        .output()
    else {
        return Vec::new();
    };
    String::from_utf8_lossy(&ps.stdout)
        .lines()
        .filter_map(parse_ps)
        .collect()
}

/// Parses `/proc/<pid>/stat`. The name in parentheses can itself contain
/// parentheses, so the other fields start after the last one.
fn parse_stat(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        zombie,
    })
}

/// Parses a line of `ps -o pid=,ppid=,state=`.
fn parse_ps(line: &str) -> Option<Process> {
    let mut fields = line.split_whitespace();
    let pid = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process {
        pid,
        parent,
        zombie: fields.next()?.starts_with('Z'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_parentheses_in_the_name_is_parsed() {
        let process = parse_stat("42 (a) Z 7 (b)) S 17 42 42 0").unwrap();
        assert_eq!(
            (process.pid, process.parent, process.zombie),
            (42, 17, false)
        );
        assert!(parse_stat("42 (sh) Z 17 42").unwrap().zombie);
    }

    #[test]
    fn line_of_ps_is_parsed() {
        let process = parse_ps("  501     1 Ss").unwrap();
        assert_eq!(
            (process.pid, process.parent, process.zombie),
            (501, 1, false)
        );
        assert!(parse_ps("501 1 Z+").unwrap().zombie);
    }

    #[test]
    fn running_child_is_listed_and_is_gone_after_a_kill() {
        assert!(command_line(std::process::id()).is_some());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        signal(child.id(), Signal::KILL);
        assert!(wait_until_gone(&[child.id()], Duration::from_secs(5)));
        child.wait().unwrap();
    }
}
