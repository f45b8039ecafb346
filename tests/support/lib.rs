//! Support for the integration tests and benchmarks: real servers, an isolated
//! service for each test, readers that call the API, and checks of the invariants.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod app;
pub mod asyncapi;
pub mod backdate;
pub mod certificates;
pub mod collector;
pub mod contract;
pub mod debian;
pub mod encrypted;
pub mod eventually;
pub mod facts;
pub mod future_events;
pub mod holding_proxy;
pub mod invariants;
pub mod issuer;
pub mod local_time;
pub mod log_loss;
pub mod nats_credentials;
pub mod nginx;
pub mod open_files;
pub mod process;
pub mod production_nats;
pub mod production_redis;
pub mod proxy;
pub mod random_history;
pub mod reader;
pub mod reader_log;
pub mod replica;
pub mod stack;
pub mod stream;
pub mod zoneinfo;

pub use app::App;
pub use eventually::{eventually, eventually_ok, scaled, until};
pub use reader::{ApiResponse, Reader};
pub use stack::Stack;
