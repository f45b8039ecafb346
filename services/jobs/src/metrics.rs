//! Metrics of the runs of jobs in this process.

use eventlog::clock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::error::JobError;
use crate::schedule::Job;
use crate::tasks::JobOutcome;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct JobMetrics {
    runs: Family<RunLabels, Counter>,
    succeeded_at: Family<JobLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RunLabels {
    name: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabels {
    name: &'static str,
}

impl JobMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let runs = Family::default();
        registry.register(
            "reading_sessions_upkeep_runs",
            "Runs of jobs in this process, by result",
            runs.clone(),
        );
        let succeeded_at = Family::default();
        registry.register(
            "reading_sessions_upkeep_last_success_timestamp_seconds",
            "Unix time of the last successful run of a job in this process",
            succeeded_at.clone(),
        );
        Self { runs, succeeded_at }
    }

    pub(crate) fn record(&self, job: Job, run: &Result<JobOutcome, JobError>) {
        let result = match run {
            Ok(_) => "done",
            Err(JobError::Stopped) => "stopped",
            Err(_) => "failed",
        };
        let name = job.as_str();
        self.runs.get_or_create(&RunLabels { name, result }).inc();
        if run.is_ok() {
            let now = clock::now().timestamp();
            self.succeeded_at
                .get_or_create(&JobLabels { name })
                .set(now);
        }
    }
}
