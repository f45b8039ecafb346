//! The limiting resource of a measurement, from the CPU time of its processes. If the
//! cores had time left, the kind of the load determines what limits the figure.

use crate::usage::Span;

/// Share of all cores from which the processor limits a measurement.
const BUSY: f64 = 0.9;

/// The name for programs that the measurement did not start.
const OTHER_PROGRAMS: &str = "other programs";

/// An open loop, or users with pauses: the service could do more.
pub const OFFERED_LOAD: &str = "offered load";

/// A closed loop on idle cores waits for commits and for messages between processes.
pub const ROUND_TRIPS: &str = "round trips";

impl Span {
    /// Adds up several measurements of one load.
    pub fn sum<'a>(spans: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for span in spans {
            sum.length += span.length;
            sum.machine += span.machine;
            sum.used.merge(&span.used);
        }
        sum
    }

    /// A time divided by the time of all cores.
    fn share(&self, used: std::time::Duration, cores: f64) -> f64 {
        used.as_secs_f64() / (self.length.as_secs_f64() * cores).max(f64::EPSILON)
    }

    /// The processes and their shares of all cores, largest first.
    fn shares(&self, cores: f64) -> Vec<(&'static str, f64)> {
        let others = self.machine.saturating_sub(self.used.total());
        let used = self.used.0.iter().map(|(name, used)| (*name, *used));
        let mut shares: Vec<(&str, f64)> = used
            .chain([(OTHER_PROGRAMS, others)])
            .map(|(name, used)| (name, self.share(used, cores)))
            .collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares
    }

    /// The limiting resource: the processor with its largest user, or else `otherwise`.
    pub fn limit(&self, otherwise: &str) -> String {
        self.limit_on(crate::usage::cores(), otherwise)
    }

    fn limit_on(&self, cores: f64, otherwise: &str) -> String {
        let shares = self.shares(cores);
        let busy: f64 = shares.iter().map(|(_, share)| share).sum();
        match shares.first() {
            Some((name, share)) if busy >= BUSY => {
                format!("processor: {name} {:.0} %", 100.0 * share)
            }
            _ => format!("{otherwise} (processor {:.0} %)", 100.0 * busy),
        }
    }

    /// A row of the table of CPU times.
    pub fn row(&self, what: &str) -> String {
        let shares = self.shares(crate::usage::cores());
        let busy: f64 = shares.iter().map(|(_, share)| share).sum();
        let processes: Vec<String> = shares
            .iter()
            .filter(|(_, share)| *share >= 0.005)
            .map(|(name, share)| format!("{name} {:.0} %", 100.0 * share))
            .collect();
        format!(
            "| {what} | {:.1} s | {:.0} % | {} |\n",
            self.length.as_secs_f64(),
            100.0 * busy,
            processes.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::usage::Usage;

    fn span(postgres: u64, service: u64, machine: u64) -> Span {
        Span {
            length: Duration::from_secs(10),
            used: Usage(BTreeMap::from([
                ("Postgres", Duration::from_secs(postgres)),
                ("service", Duration::from_secs(service)),
            ])),
            machine: Duration::from_secs(machine),
        }
    }

    #[test]
    fn busy_cores_are_limited_by_the_largest_process() {
        assert_eq!(
            span(7, 8, 19).limit_on(2.0, ROUND_TRIPS),
            "processor: service 40 %"
        );
    }

    #[test]
    fn other_programs_count_as_a_process() {
        assert_eq!(
            span(4, 3, 18).limit_on(2.0, ROUND_TRIPS),
            "processor: other programs 55 %"
        );
    }

    #[test]
    fn idle_cores_are_limited_by_the_kind_of_load() {
        assert_eq!(
            span(4, 3, 8).limit_on(2.0, OFFERED_LOAD),
            "offered load (processor 40 %)"
        );
    }

    #[test]
    fn rounds_are_added_up() {
        let sum = Span::sum([&span(7, 8, 19), &span(1, 0, 1)]);
        assert_eq!(
            sum.limit_on(2.0, ROUND_TRIPS),
            "round trips (processor 50 %)"
        );
    }

    #[test]
    fn a_span_without_figures_has_no_busy_time() {
        assert_eq!(
            Span::default().limit_on(2.0, OFFERED_LOAD),
            "offered load (processor 0 %)"
        );
    }
}
