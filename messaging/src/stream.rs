//! Creates and checks the streams. Their configurations are `nats/stream.json`,
//! `nats/relay_cursor.json` and `nats/dead_letters.json`.
//!
//! The configuration of each stream is read back and compared, because a NATS
//! server silently drops settings that it does not support.

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{self, ErrorCode};
use thiserror::Error;

use crate::Subjects;

mod limits;

pub use async_nats::jetstream::stream::Compression;
pub use limits::StreamLimits;
use limits::{compare_limits, update_limits};

/// The expected configurations, with the names that are used without a prefix.
const EVENTS: &str = include_str!("../../nats/stream.json");
const RELAY_CURSOR: &str = include_str!("../../nats/relay_cursor.json");
const DEAD_LETTERS: &str = include_str!("../../nats/dead_letters.json");

/// A stream cannot be used.
#[derive(Debug, Error)]
pub enum StreamError {
    /// JetStream did not respond, or refused. Retry later.
    #[error("JetStream is unavailable")]
    Unavailable(#[source] async_nats::Error),
    /// An operator must give the server more space, or the stream a lower limit.
    #[error(
        "NATS has no space for the stream {stream} of at most {max_bytes} bytes; raise \
             `max_file_store` of NATS, or lower NATS_STREAM_MAX_BYTES"
    )]
    NoSpace { stream: String, max_bytes: i64 },
    /// An operator must change the stream or delete it.
    #[error(
        "the stream {stream} has {setting} = {actual}, but the service requires {expected}; \
             change the setting, or delete the stream to have it created again"
    )]
    Different {
        stream: String,
        /// The first setting that differs.
        setting: &'static str,
        actual: String,
        expected: String,
    },
}

/// Returns the stream of events. Creates it if it does not exist.
///
/// The settings on which order and durability depend must be the expected ones. An
/// existing stream with other limits gets these, if this NATS user may change it.
/// Otherwise a warning contains the command for an operator.
///
/// # Errors
/// If JetStream is unavailable, or a setting differs, or a new stream did not get the
/// limits.
pub async fn ensure(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
    limits: &StreamLimits,
) -> Result<Stream, StreamError> {
    let expected = configuration(EVENTS, subjects.stream(), subjects.all());
    let expected = limits.apply(expected);
    let stream = ensure_as(jetstream, &expected).await?;
    let actual = &stream.cached_info().config;
    if StreamLimits::from_config(actual) != *limits {
        update_limits(jetstream, actual.clone(), limits).await?;
    }
    Ok(stream)
}

/// Returns the stream that contains the relay's cursor, like [`ensure`]. It has as many
/// replicas as the stream of events.
pub async fn ensure_cursor(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
    replicas: usize,
) -> Result<Stream, StreamError> {
    let expected = cursor_configuration(subjects);
    let expected = Config {
        num_replicas: replicas,
        ..expected
    };
    ensure_as(jetstream, &expected).await
}

/// Returns the stream that contains the relay's cursor; `None` if it does not exist.
pub async fn find_cursor(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<Option<Stream>, StreamError> {
    find_as(jetstream, &cursor_configuration(subjects)).await
}

fn cursor_configuration(subjects: &Subjects) -> Config {
    configuration(RELAY_CURSOR, subjects.cursor_stream(), subjects.cursor(">"))
}

/// Returns the stream of events after checking its settings; `None` if it does not
/// exist.
pub async fn find(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<Option<Stream>, StreamError> {
    let expected = configuration(EVENTS, subjects.stream(), subjects.all());
    find_as(jetstream, &expected).await
}

/// Returns the stream of dead letters, like [`ensure`].
pub async fn ensure_dead_letters(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<Stream, StreamError> {
    let expected = configuration(
        DEAD_LETTERS,
        subjects.dead_letter_stream(),
        subjects.dead_letter(">"),
    );
    ensure_as(jetstream, &expected).await
}

async fn ensure_as(
    jetstream: &jetstream::Context,
    expected: &Config,
) -> Result<Stream, StreamError> {
    if let Some(stream) = find_as(jetstream, expected).await? {
        return Ok(stream);
    }
    let stream = create(jetstream, expected).await?;
    let actual = &stream.cached_info().config;
    compare(expected, actual)?;
    compare_limits(&StreamLimits::from_config(expected), actual)?;
    Ok(stream)
}

async fn find_as(
    jetstream: &jetstream::Context,
    expected: &Config,
) -> Result<Option<Stream>, StreamError> {
    match jetstream.get_stream(&expected.name).await {
        Ok(stream) => {
            compare(expected, &stream.cached_info().config)?;
            Ok(Some(stream))
        }
        Err(error) if is_not_found(&error.kind()) => Ok(None),
        Err(error) => Err(StreamError::Unavailable(error.into())),
    }
}

fn is_not_found(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

async fn create(jetstream: &jetstream::Context, expected: &Config) -> Result<Stream, StreamError> {
    match jetstream.create_stream(expected).await {
        Ok(stream) => Ok(stream),
        // Another process created it first. Its settings are compared too.
        Err(error)
            if matches!(error.kind(), CreateStreamErrorKind::JetStream(e)
                if e.error_code() == ErrorCode::STREAM_NAME_EXIST) =>
        {
            jetstream
                .get_stream(&expected.name)
                .await
                .map_err(|error| StreamError::Unavailable(error.into()))
        }
        // NATS reserves the limit when it creates a stream.
        Err(error)
            if matches!(error.kind(), CreateStreamErrorKind::JetStream(e)
                if e.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED) =>
        {
            Err(StreamError::NoSpace {
                stream: expected.name.clone(),
                max_bytes: expected.max_bytes,
            })
        }
        Err(error) => Err(StreamError::Unavailable(error.into())),
    }
}

fn configuration(file: &str, name: &str, subject: String) -> Config {
    let mut config = parse(file);
    name.clone_into(&mut config.name);
    config.subjects = vec![subject];
    config
}

fn parse(file: &str) -> Config {
    serde_json::from_str(file).expect("the files in nats are stream configurations")
}

fn compare(expected: &Config, actual: &Config) -> Result<(), StreamError> {
    macro_rules! same {
        ($($setting:ident),*) => {
            $(if expected.$setting != actual.$setting {
                return Err(StreamError::Different {
                    stream: expected.name.clone(),
                    setting: stringify!($setting),
                    actual: format!("{:?}", actual.$setting),
                    expected: format!("{:?}", expected.$setting),
                });
            })*
        };
    }
    same!(
        subjects,
        storage,
        retention,
        discard,
        no_ack,
        sealed,
        duplicate_window,
        allow_rollup,
        allow_direct,
        max_messages_per_subject
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_without_prefix_have_the_documented_names() {
        let subjects = Subjects::new("");
        for (file, name, subject) in [
            (EVENTS, subjects.stream(), subjects.all()),
            (RELAY_CURSOR, subjects.cursor_stream(), subjects.cursor(">")),
            (
                DEAD_LETTERS,
                subjects.dead_letter_stream(),
                subjects.dead_letter(">"),
            ),
        ] {
            let config = configuration(file, name, subject);
            let file: serde_json::Value = serde_json::from_str(file).unwrap();
            assert_eq!(config.name, file["name"]);
            assert_eq!(config.subjects[0], file["subjects"][0]);
        }
    }

    #[test]
    fn dropped_setting_is_reported_by_name() {
        let expected = configuration(EVENTS, "READING", "reading.sessions.>".to_owned());
        let mut actual = expected.clone();
        assert!(compare(&expected, &actual).is_ok());
        actual.allow_direct = false;
        let error = compare(&expected, &actual).unwrap_err();
        assert!(error.to_string().contains("allow_direct"), "{error}");
    }
}
