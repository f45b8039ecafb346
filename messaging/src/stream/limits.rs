//! The limits of the stream of events: its age, its size, its compression and its
//! replicas. They are settings; all other parts of the configuration are fixed.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Compression, Config};

use super::{EVENTS, StreamError, parse};

/// The limits of the stream of events. When one is reached, the oldest events leave, so
/// publishing never stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Zero for no limit. Otherwise at least the stream's duplicate window (20 s).
    pub max_age: Duration,
    /// Zero for no limit.
    pub max_bytes: u64,
    pub compression: Compression,
    pub replicas: usize,
}

impl StreamLimits {
    /// The limits in `nats/stream.json`.
    #[must_use]
    pub fn documented() -> Self {
        Self::from_config(&parse(EVENTS))
    }

    /// The limits of a stream. The server returns -1 for no limit.
    pub(super) fn from_config(config: &Config) -> Self {
        Self {
            max_age: config.max_age,
            max_bytes: config.max_bytes.try_into().unwrap_or(0),
            compression: config.compression.clone().unwrap_or(Compression::None),
            replicas: config.num_replicas,
        }
    }

    /// A configuration with these limits.
    pub(super) fn apply(&self, config: Config) -> Config {
        let max_bytes = i64::try_from(self.max_bytes).ok();
        Config {
            max_age: self.max_age,
            max_bytes: max_bytes.filter(|bytes| *bytes > 0).unwrap_or(-1),
            compression: Some(self.compression.clone()),
            num_replicas: self.replicas,
            ..config
        }
    }

    /// The command by which an operator gives a stream these limits.
    fn edit_command(&self, stream: &str) -> String {
        let max_bytes = i64::try_from(self.max_bytes).ok();
        let compression = match self.compression {
            Compression::S2 => "s2",
            Compression::None => "none",
        };
        format!(
            "nats stream edit {stream} --force --max-age={}s --max-bytes={} \
             --compression={compression} --replicas={}",
            self.max_age.as_secs(),
            max_bytes.filter(|bytes| *bytes > 0).unwrap_or(-1),
            self.replicas
        )
    }
}

/// Gives an existing stream these limits, if this NATS user may change it.
pub(super) async fn update_limits(
    jetstream: &jetstream::Context,
    actual: Config,
    limits: &StreamLimits,
) -> Result<(), StreamError> {
    let stream = actual.name.clone();
    match jetstream.update_stream(limits.apply(actual)).await {
        Ok(info) => {
            compare_limits(limits, &info.config)?;
            tracing::info!(stream, ?limits, "the stream {stream} has new limits");
        }
        // A refused permission ends in a timeout. Events are published all the same.
        Err(error) => {
            let command = limits.edit_command(&stream);
            tracing::warn!(
                stream,
                "changing the limits of the stream {stream} failed: {error}; an operator must \
                 run `{command}`"
            );
        }
    }
    Ok(())
}

/// Checks the limits that a server has accepted.
pub(super) fn compare_limits(expected: &StreamLimits, config: &Config) -> Result<(), StreamError> {
    let actual = StreamLimits::from_config(config);
    if actual == *expected {
        return Ok(());
    }
    Err(StreamError::Different {
        stream: config.name.clone(),
        setting: "limits",
        actual: format!("{actual:?}"),
        expected: format!("{expected:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_applied_and_read_back() {
        let unlimited = StreamLimits {
            max_age: Duration::ZERO,
            max_bytes: 0,
            compression: Compression::None,
            replicas: 3,
        };
        for limits in [StreamLimits::documented(), unlimited] {
            let config = limits.apply(parse(EVENTS));
            assert!(compare_limits(&limits, &config).is_ok());
            let dropped = Config {
                compression: None,
                max_bytes: 7,
                ..config
            };
            let error = compare_limits(&limits, &dropped).unwrap_err();
            assert!(error.to_string().contains("max_bytes: 7"), "{error}");
        }
        let command = StreamLimits::documented().edit_command("READING");
        assert!(
            command.ends_with(
                "--max-age=2592000s --max-bytes=15000000000 --compression=s2 --replicas=1"
            ),
            "{command}"
        );
    }
}
