//! Looks at processes by number: `/proc` where there is one, else `ps`. Never
//! ends a process that it was not told to.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A line of the process table.
struct Process {
    pid: u32,
    parent: u32,
    zombie: bool,
}

/// The living children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let living = table()
        .into_iter()
        .filter(|process| process.parent == parent && !process.zombie);
    living.map(|process| process.pid).collect()
}

/// Sends a signal; a process that is gone is no error, since it may go at any
/// moment.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// The command and arguments of a living process.
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
    // A zombie has none.
    (!line.trim().is_empty()).then_some(line)
}

/// Waits until none of these processes lives; returns whether that came true in
/// time. A zombie is gone: nobody may be there to collect it.
pub fn wait_until_gone(pids: &[u32], longest: Duration) -> bool {
    let begun = Instant::now();
    loop {
        // A process without a command line is a zombie, or was never more than
        // a thread of the kernel.
        if pids.iter().all(|pid| command_line(*pid).is_none()) {
            return true;
        }
        if begun.elapsed() > longest {
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
        return stats.filter_map(|stat| from_stat(&stat)).collect();
    }
    let Ok(ps) = Command::new("ps")
        .args(["-A", "-o", "pid=,ppid=,state="])
        .output()
    else {
        return Vec::new();
    };
    String::from_utf8_lossy(&ps.stdout)
        .lines()
        .filter_map(from_ps)
        .collect()
}

/// `/proc/<pid>/stat`. The name in parentheses may hold anything, parentheses
/// too, so the rest is read after the last one.
fn from_stat(stat: &str) -> Option<Process> {
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

/// A line of `ps -o pid=,ppid=,state=`.
fn from_ps(line: &str) -> Option<Process> {
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
    fn a_name_with_parentheses_does_not_confuse_the_table() {
        let process = from_stat("42 (a) Z 7 (b)) S 17 42 42 0").unwrap();
        assert_eq!(
            (process.pid, process.parent, process.zombie),
            (42, 17, false)
        );
        assert!(from_stat("42 (sh) Z 17 42").unwrap().zombie);
    }

    #[test]
    fn lines_of_ps_are_read() {
        let process = from_ps("  501     1 Ss").unwrap();
        assert_eq!(
            (process.pid, process.parent, process.zombie),
            (501, 1, false)
        );
        assert!(from_ps("501 1 Z+").unwrap().zombie);
    }

    #[test]
    fn this_process_has_a_command_line_and_its_child_is_seen() {
        assert!(command_line(std::process::id()).is_some());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        signal(child.id(), Signal::KILL);
        assert!(wait_until_gone(&[child.id()], Duration::from_secs(5)));
        child.wait().unwrap();
    }
}
