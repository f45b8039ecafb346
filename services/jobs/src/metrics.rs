//! Runs of jobs, counted.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::schedule::Job;
use crate::scheduler::is_stopped;
use crate::tasks::JobOutcome;
use eventlog::clock;
use prometheus_client::registry::Registry;

/// What is counted; cheap to clone.
#[derive(Clone, Debug)]
pub struct JobMetrics {
    runs: Family<Run, Counter>,
    succeeded_at: Family<Of, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Run {
    name: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    name: &'static str,
}

impl JobMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let runs = Family::default();
        registry.register("reading_sessions_upkeep_runs", "Runs of jobs in this process", runs.clone());
        let succeeded_at = Family::default();
        registry.register("reading_sessions_upkeep_last_success_timestamp_seconds", "When a job ended well in this process, in Unix time", succeeded_at.clone());
        Self {
            runs,
            succeeded_at,
        }
    }

    pub(crate) fn ran(&self, job: Job, done: &anyhow::Result<JobOutcome>) {
        let result = match done {
            Ok(_) => "done",
            Err(error) if is_stopped(error) => "stopped",
            Err(_) => "failed",
        };
        let name = job.as_str();
        self.runs.get_or_create(&Run { name, result }).inc();
        if done.is_ok() {
            let now = clock::now().timestamp();
            self.succeeded_at.get_or_create(&Of { name }).set(now);
        }
    }
}
