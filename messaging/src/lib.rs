//! The log on NATS JetStream: the relay publishes it, projections and analytics
//! consumers receive it.
//!
//! This crate decides nothing and imports neither HTTP nor Redis. Read the
//! modules in this order.

pub mod subject;

pub mod cloud_event;
pub mod json_schema;
pub mod stream;

pub mod relay;

pub mod fan_out;

pub use subject::Subjects;
