//! The log on NATS JetStream: the relay publishes it, projections and analytics
//! consumers receive it.
//!
//! This crate makes no decisions, and imports neither HTTP nor Redis. Read the
//! modules in this order: the wire format, the publishing side, the receiving side.

pub mod subject;

pub mod cloud_event;
pub mod json_schema;

pub mod stream;

pub mod relay;

pub mod fan_out;
pub mod log_subscription;

pub use fan_out::FanOut;
pub use log_subscription::LogSubscription;
pub use subject::Subjects;
