//! The streams: created as `nats/stream.json` and `nats/dead_letters.json` want
//! them, then read back and compared, because a server that does not know a
//! setting drops it silently.

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{self, ErrorCode};
use thiserror::Error;

use crate::Subjects;

/// The wanted configurations, under the names of the public contract.
const EVENTS: &str = include_str!("../../nats/stream.json");
const DEAD_LETTERS: &str = include_str!("../../nats/dead_letters.json");

/// The stream is not as it must be.
#[derive(Debug, Error)]
pub enum StreamError {
    /// JetStream did not answer, or refused; try again later.
    #[error("JetStream is unavailable")]
    Unavailable(#[source] async_nats::Error),
    /// The server runs the stream with other settings than those asked for.
    #[error("the stream {stream} has {setting} = {actual}, wanted {wanted}")]
    Different {
        /// The name of the stream.
        stream: String,
        /// The first setting that differs.
        setting: &'static str,
        /// What the server says.
        actual: String,
        /// What its file in `nats` says.
        wanted: String,
    },
}

/// The stream of events, created when there is none. Limits and replicas of one
/// that exists are the operator's; what order and durability rest on is not.
///
/// # Errors
/// See [`StreamError`].
pub async fn ensure(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<Stream, StreamError> {
    let wanted = wanted(EVENTS, subjects.stream(), subjects.all());
    ensure_as(jetstream, wanted).await
}

/// The stream of events as it must be; `None` when there is none.
///
/// # Errors
/// See [`StreamError`].
pub async fn find(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<Option<Stream>, StreamError> {
    let wanted = wanted(EVENTS, subjects.stream(), subjects.all());
    find_as(jetstream, &wanted).await
}

/// The stream of dead letters; otherwise as [`ensure`].
///
/// # Errors
/// See [`StreamError`].
pub async fn ensure_dead_letters(
    jetstream: &jetstream::Context,
    subjects: &Subjects,
) -> Result<Stream, StreamError> {
    let wanted = wanted(
        DEAD_LETTERS,
        subjects.dead_letter_stream(),
        subjects.dead_letter(">"),
    );
    ensure_as(jetstream, wanted).await
}

async fn ensure_as(jetstream: &jetstream::Context, wanted: Config) -> Result<Stream, StreamError> {
    if let Some(stream) = find_as(jetstream, &wanted).await? {
        return Ok(stream);
    }
    let stream = create(jetstream, &wanted).await?;
    compare(&wanted, &stream.cached_info().config)?;
    Ok(stream)
}

async fn find_as(
    jetstream: &jetstream::Context,
    wanted: &Config,
) -> Result<Option<Stream>, StreamError> {
    match jetstream.get_stream(&wanted.name).await {
        Ok(stream) => {
            compare(wanted, &stream.cached_info().config)?;
            Ok(Some(stream))
        }
        Err(error) if missing(&error.kind()) => Ok(None),
        Err(error) => Err(StreamError::Unavailable(error.into())),
    }
}

fn missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

async fn create(jetstream: &jetstream::Context, wanted: &Config) -> Result<Stream, StreamError> {
    match jetstream.create_stream(wanted).await {
        Ok(stream) => Ok(stream),
        // Another process was faster; what it made is compared like any other.
        Err(error)
            if matches!(error.kind(), CreateStreamErrorKind::JetStream(e)
                if e.error_code() == ErrorCode::STREAM_NAME_EXIST) =>
        {
            jetstream
                .get_stream(&wanted.name)
                .await
                .map_err(|error| StreamError::Unavailable(error.into()))
        }
        Err(error) => Err(StreamError::Unavailable(error.into())),
    }
}

fn wanted(file: &str, name: &str, subject: String) -> Config {
    let mut config: Config =
        serde_json::from_str(file).expect("the files in nats are streams' configurations");
    name.clone_into(&mut config.name);
    config.subjects = vec![subject];
    config
}

fn compare(wanted: &Config, actual: &Config) -> Result<(), StreamError> {
    macro_rules! same {
        ($($setting:ident),*) => {
            $(if wanted.$setting != actual.$setting {
                return Err(StreamError::Different {
                    stream: wanted.name.clone(),
                    setting: stringify!($setting),
                    actual: format!("{:?}", actual.$setting),
                    wanted: format!("{:?}", wanted.$setting),
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
    fn the_public_streams_have_the_public_names() {
        let subjects = Subjects::new("");
        for (file, name, subject) in [
            (EVENTS, subjects.stream(), subjects.all()),
            (
                DEAD_LETTERS,
                subjects.dead_letter_stream(),
                subjects.dead_letter(">"),
            ),
        ] {
            let config = wanted(file, name, subject);
            let file: serde_json::Value = serde_json::from_str(file).unwrap();
            assert_eq!(config.name, file["name"]);
            assert_eq!(config.subjects[0], file["subjects"][0]);
        }
    }

    #[test]
    fn a_setting_that_the_server_dropped_is_an_error() {
        let wanted = wanted(EVENTS, "READING", "reading.sessions.>".to_owned());
        let mut actual = wanted.clone();
        assert!(compare(&wanted, &actual).is_ok());
        actual.allow_direct = false;
        let error = compare(&wanted, &actual).unwrap_err();
        assert!(error.to_string().contains("allow_direct"), "{error}");
    }
}
