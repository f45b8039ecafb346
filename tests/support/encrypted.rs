//! Servers that accept only encrypted connections.

mod nats;
mod postgres;
mod redis;

pub use nats::EncryptedNats;
pub use postgres::encrypt_postgres;
pub use redis::RedisTerminator;
