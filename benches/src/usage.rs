//! CPU time and memory of processes, from `/proc` on Linux (proc(5)). On other systems
//! the figures are 0.

use std::collections::BTreeMap;
use std::time::Duration;

/// The unit of times in `/proc`: hundredths of a second on every architecture.
const TICK_MS: u64 = 10;

/// Attempts to read all processes while none starts or ends. By then, the processes of a
/// reference that has just ended are gone.
const MAX_ATTEMPTS: u32 = 50;

/// CPU time of each process, including its children.
#[derive(Clone, Debug, Default)]
pub struct Usage(pub BTreeMap<&'static str, Duration>);

impl Usage {
    /// Usage of the generator alone.
    pub fn of_generator(used: Duration) -> Self {
        Self(BTreeMap::from([("generator", used)]))
    }

    /// The usage since an earlier measurement.
    pub fn since(&self, before: &Self) -> Self {
        let used = self.0.iter().map(|(name, now)| {
            let before = before.0.get(name).copied().unwrap_or_default();
            (*name, now.saturating_sub(before))
        });
        Self(used.collect())
    }

    /// CPU time of a process divided by `count`, in microseconds.
    pub fn micros_each(&self, name: &str, count: usize) -> f64 {
        let used = self.0.get(name).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = count.max(1) as f64;
        used.as_secs_f64() * 1e6 / count
    }
}

/// CPU time of a process without its children.
pub fn own_cpu(pid: u32) -> Duration {
    let ticks = stat(pid).map_or(0, |stat| stat.own_ticks);
    Duration::from_millis(ticks * TICK_MS)
}

/// CPU time of a process and all its descendants, including ended ones.
pub fn cpu(pid: u32) -> Duration {
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
    let mut ticks = 0;
    while let Some(parent) = family.pop() {
        for stat in &all {
            if stat.pid == parent {
                ticks += stat.ticks;
            }
            if stat.parent == parent {
                family.push(stat.pid);
            }
        }
    }
    Duration::from_millis(ticks * TICK_MS)
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
