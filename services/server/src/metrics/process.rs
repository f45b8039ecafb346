//! Resources of this process, from `/proc`, with the names of Prometheus's own client
//! libraries. Only on Linux.

use std::fmt;

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

#[derive(Debug)]
pub(crate) struct ProcessMetrics {
    /// Unix time in seconds. Read once: the boot time changes when the clock is set.
    started_at: Option<f64>,
}

struct Resources {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: i64,
    open_fds: usize,
    /// `None` if there is no limit.
    max_fds: Option<u64>,
}

impl ProcessMetrics {
    pub(crate) fn register(registry: &mut Registry) {
        let started_at = started_at().ok();
        registry.register_collector(Box::new(Self { started_at }));
    }
}

impl Resources {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let max_fds = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        };
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            threads: stat.num_threads,
            open_fds: process.fd_count()?,
            max_fds,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn started_at() -> ProcResult<f64> {
    let started = Process::myself()?.stat()?.starttime as f64;
    Ok(procfs::boot_time_secs()? as f64 + started / procfs::ticks_per_second() as f64)
}

impl Collector for ProcessMetrics {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // An absent metric is better than a wrong one.
        let Ok(resources) = Resources::read() else {
            return Ok(());
        };
        let cpu = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time of this process, user and system, in seconds",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(resources.cpu_seconds).encode(cpu)?;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory of this process that is in RAM, in bytes",
                Some(resources.resident_bytes as f64),
            ),
            (
                "process_virtual_memory_bytes",
                "Address space of this process, in bytes",
                Some(resources.virtual_bytes as f64),
            ),
            (
                "process_threads",
                "Threads of this process",
                Some(resources.threads as f64),
            ),
            (
                "process_open_fds",
                "Open file descriptors of this process, connections included",
                Some(resources.open_fds as f64),
            ),
            (
                "process_max_fds",
                "Limit of open file descriptors of this process; absent if there is none",
                resources.max_fds.map(|limit| limit as f64),
            ),
            (
                "process_start_time_seconds",
                "Unix time at which this process started",
                self.started_at,
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        Ok(())
    }
}
