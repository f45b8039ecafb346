//! CPU time and memory of processes, from `/proc` on Linux (proc(5)). On other systems
//! the figures are 0.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The unit of times in `/proc`: hundredths of a second on every architecture.
const TICK_MS: u64 = 10;

/// Attempts to read all processes while none starts or ends. By then, the processes of a
/// reference that has just ended are gone.
const MAX_ATTEMPTS: u32 = 50;

/// CPU time of each process, including its children.
#[derive(Clone, Debug, Default)]
pub struct Usage(pub BTreeMap<&'static str, Duration>);

impl Usage {
    fn add(&mut self, name: &'static str, used: Duration) {
        *self.0.entry(name).or_default() += used;
    }

    /// Adds the usage of another measurement.
    pub fn merge(&mut self, other: &Self) {
        for (name, used) in &other.0 {
            self.add(name, *used);
        }
    }

    /// The usage since an earlier measurement.
    fn since(&self, before: &Self) -> Self {
        let used = self.0.iter().map(|(name, now)| {
            let before = before.0.get(name).copied().unwrap_or_default();
            (*name, now.saturating_sub(before))
        });
        Self(used.collect())
    }

    /// CPU time of a process.
    pub fn of(&self, name: &str) -> Duration {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub fn total(&self) -> Duration {
        self.0.values().sum()
    }

    /// CPU time of a process divided by `count`, in microseconds.
    pub fn micros_each(&self, name: &str, count: usize) -> f64 {
        micros_each(self.of(name), count)
    }
}

/// A time divided by `count`, in microseconds.
pub fn micros_each(used: Duration, count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = count.max(1) as f64;
    used.as_secs_f64() * 1e6 / count
}

/// Reads the CPU time of processes at the start and at the end of a measurement.
pub struct Meter {
    /// Several processes may have the same name.
    pids: Vec<(&'static str, u32)>,
    /// The name for children of this process that end during the measurement.
    children: Option<&'static str>,
    started: Instant,
    before: Usage,
    machine_before: Duration,
}

/// The CPU time of one or more measurements.
#[derive(Clone, Debug, Default)]
pub struct Span {
    pub length: Duration,
    pub used: Usage,
    /// Busy time of all cores, including other programs.
    pub machine: Duration,
}

impl Meter {
    /// Starts to measure these processes and the generator, which is this process.
    pub fn start(pids: Vec<(&'static str, u32)>) -> Self {
        Self::start_with(pids, None)
    }

    /// Measures the children that end during the measurement too.
    pub fn with_children(pids: Vec<(&'static str, u32)>, name: &'static str) -> Self {
        Self::start_with(pids, Some(name))
    }

    fn start_with(pids: Vec<(&'static str, u32)>, children: Option<&'static str>) -> Self {
        Self {
            before: usage(&pids, children),
            machine_before: machine(),
            started: Instant::now(),
            pids,
            children,
        }
    }

    pub fn stop(self) -> Span {
        let length = self.started.elapsed();
        let machine = machine().saturating_sub(self.machine_before);
        Span {
            length,
            used: usage(&self.pids, self.children).since(&self.before),
            machine,
        }
    }
}

fn usage(pids: &[(&'static str, u32)], children: Option<&'static str>) -> Usage {
    let mut usage = Usage::default();
    for (name, pid) in pids {
        usage.add(name, cpu(*pid));
    }
    // The generator is the parent of all other processes.
    let own = stat(std::process::id());
    let (own, ended) = own.map_or((0, 0), |own| (own.own_ticks, own.ticks - own.own_ticks));
    usage.add("generator", ticks(own));
    if let Some(name) = children {
        usage.add(name, ticks(ended));
    }
    usage
}

/// CPU time of a process and all its descendants, including ended ones.
fn cpu(pid: u32) -> Duration {
    // A process that ends during the measurement could be missing both as itself and in
    // its parent's sum.
    let mut before = processes();
    let mut all: Vec<Stat>;
    let mut attempts = 0;
    loop {
        all = before.iter().copied().filter_map(stat).collect();
        let after = processes();
        attempts += 1;
        if after == before || attempts == MAX_ATTEMPTS {
            break;
        }
        before = after;
    }
    let mut family = vec![pid];
    let mut used = 0;
    while let Some(parent) = family.pop() {
        for stat in &all {
            if stat.pid == parent {
                used += stat.ticks;
            }
            if stat.parent == parent {
                family.push(stat.pid);
            }
        }
    }
    ticks(used)
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * TICK_MS)
}

/// Busy time of all cores since the start of the machine.
fn machine() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    ticks(busy_ticks(&text))
}

/// The busy ticks in the text of `/proc/stat`: all but idle time and waits for a disk.
/// Includes time that a hypervisor took away.
fn busy_ticks(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "));
    // user, nice, system, idle, iowait, irq, softirq, steal. The guest times after them
    // are part of the first two.
    let columns = line.unwrap_or_default().split_whitespace().take(8);
    let busy = columns.enumerate().filter(|(n, _)| !matches!(n, 3 | 4));
    busy.filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
        .sum()
}

/// The number of cores that this process may use.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// The ids of all processes, ascending.
fn processes() -> Vec<u32> {
    let mut all: Vec<u32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    all.sort_unstable();
    all
}

struct Stat {
    pid: u32,
    parent: u32,
    own_ticks: u64,
    /// Includes children that have ended.
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain any character. The fields start after its parenthesis.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    // utime, stime, cutime, cstime.
    let ticks: Vec<u64> = fields
        .get(11..15)?
        .iter()
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    Some(Stat {
        pid,
        parent: fields[1].parse().ok()?,
        own_ticks: ticks.iter().take(2).sum(),
        ticks: ticks.iter().sum(),
    })
}

/// Peak resident memory of a process, in bytes.
pub fn peak_resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_excludes_idle_time_and_disk_waits() {
        let text = "cpu  1 2 3 1000 2000 4 5 6 7 8\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy_ticks(text), 1 + 2 + 3 + 4 + 5 + 6);
        assert_eq!(busy_ticks(""), 0);
    }

    #[test]
    fn usage_of_processes_with_one_name_is_added() {
        let mut usage = Usage::default();
        usage.add("API", Duration::from_millis(30));
        usage.add("API", Duration::from_millis(50));
        usage.add("nginx", Duration::from_millis(20));
        assert_eq!(usage.of("API"), Duration::from_millis(80));
        assert_eq!(usage.total(), Duration::from_millis(100));
        assert!((usage.micros_each("API", 40) - 2_000.0).abs() < 1e-6);
    }
}
