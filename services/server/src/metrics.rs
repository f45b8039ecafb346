//! The metrics of a process that no single crate below can count: its pools, its roles,
//! its lag and its resources. `/metrics` of the admin listener exports them.

mod allocator;
mod append;
mod build;
mod failures;
mod lag;
mod nats;
mod pools;
#[cfg(target_os = "linux")]
mod process;
mod stream;

pub(crate) use allocator::AllocatorMetrics;
pub(crate) use append::AppendMetrics;
pub(crate) use build::BuildMetrics;
pub(crate) use failures::{HealthMetrics, LossMetrics};
pub(crate) use lag::{ProjectionGauges, RelayGauges};
pub(crate) use nats::NatsMetrics;
pub use pools::PoolMetrics;
#[cfg(target_os = "linux")]
pub(crate) use process::ProcessMetrics;
pub(crate) use stream::StreamGauges;
