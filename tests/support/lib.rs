//! What the tests stand on: real servers, a service of their own for each
//! test, readers who speak the domain, and the checks of the promises.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod app;
pub mod asyncapi;
pub mod check;
pub mod contract;
pub mod eventually;
pub mod guarded_nats;
pub mod issuer;
pub mod old;
pub mod process;
pub mod reader;
pub mod replica;
pub mod stack;
pub mod stream;
pub mod traffic;
pub mod unknown;
pub mod wire;

pub use app::App;
pub use eventually::{eventually, eventually_ok, scaled, until};
pub use reader::{Answer, Reader};
pub use stack::Stack;
