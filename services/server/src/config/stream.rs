//! The limits of the stream of events.

use std::fmt;
use std::time::Duration;

use clap::{Args, ValueEnum};
use messaging::stream::{Compression, StreamLimits};

use super::parse_bytes;

/// Limits of the stream of events. When one is reached, the oldest events leave.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Stream")]
pub struct StreamArgs {
    /// Remove events from the stream after this many days; 0 keeps them.
    ///
    /// The log keeps all events.
    #[arg(long = "nats-stream-max-age-days", env = "NATS_STREAM_MAX_AGE_DAYS", value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3_650))]
    pub max_age_days: u32,
    /// Remove the oldest events from a stream of more than this many bytes, for
    /// example `15GB`; 0 sets no limit.
    ///
    /// NATS reserves this space, so the stream must fit into its `max_file_store`.
    #[arg(long = "nats-stream-max-bytes", env = "NATS_STREAM_MAX_BYTES", value_name = "BYTES", default_value = "15GB", value_parser = parse_bytes)]
    pub max_bytes: u64,
    /// Compression of the stream on the disk of NATS.
    #[arg(
        long = "nats-stream-compression",
        env = "NATS_STREAM_COMPRESSION",
        value_name = "COMPRESSION",
        value_enum,
        default_value_t = StreamCompression::S2
    )]
    pub compression: StreamCompression,
    /// Copies of the stream in a cluster of NATS servers.
    #[arg(long = "nats-stream-replicas", env = "NATS_STREAM_REPLICAS", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamCompression {
    S2,
    None,
}

impl fmt::Display for StreamCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S2 => "s2",
            Self::None => "none",
        })
    }
}

impl StreamArgs {
    #[must_use]
    pub fn limits(&self) -> StreamLimits {
        StreamLimits {
            max_age: Duration::from_hours(24 * u64::from(self.max_age_days)),
            max_bytes: self.max_bytes,
            compression: match self.compression {
                StreamCompression::S2 => Compression::S2,
                StreamCompression::None => Compression::None,
            },
            replicas: self.replicas.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        stream: StreamArgs,
    }

    #[test]
    fn defaults_are_the_documented_configuration() {
        let defaults = Command::parse_from(["test"]).stream.limits();
        assert_eq!(defaults, StreamLimits::documented());
    }
}
