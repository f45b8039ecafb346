//! Reads a JSON Web Key Set from a file or a URL. This never follows a redirect, and
//! never reads more than the size limit of a set.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use reqwest::{Client, StatusCode, Url, redirect};
use thiserror::Error;
use tokio::io::AsyncReadExt;

use crate::secret::Secret;

/// The time limit of a request to the issuer, including its response.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The size limit of a set, in bytes.
const MAX_SET_BYTES: usize = 256 * 1024;

/// The interval of fetches from a URL. A key that the issuer removed must be rejected
/// within five minutes, even if no token names a new key.
const URL_POLL_INTERVAL: Duration = Duration::from_mins(4);

/// The interval of checks whether a file has changed.
const FILE_POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The source of a key set. `Display` hides the secret parts of a URL.
pub(super) enum JwksSource {
    File {
        path: PathBuf,
        /// The time and size of the file when it was last read; `None` before.
        last_read: Option<(SystemTime, u64)>,
    },
    Url {
        client: Client,
        url: Url,
        redacted_url: String,
    },
}

/// The URL of a key set is unusable.
#[derive(Debug, Error)]
pub enum JwksUrlError {
    /// The error of the parser does not contain the URL, which may be secret.
    #[error("JWKS_URL is not a URL: {0}")]
    Malformed(<Url as FromStr>::Err),
    #[error("JWKS_URL must start with https:// or http://")]
    UnsupportedScheme,
    #[error("JWKS_URL: setting up TLS failed")]
    Tls(#[source] reqwest::Error),
}

/// Reading a key set failed.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error("request failed")]
    Http(#[source] reqwest::Error),
    #[error("the issuer responded with {0}")]
    Status(StatusCode),
    #[error("the key set is longer than {MAX_SET_BYTES} bytes")]
    TooLong,
}

impl JwksSource {
    pub(super) fn from_file(path: PathBuf) -> Self {
        let last_read = None;
        Self::File { path, last_read }
    }

    pub(super) fn from_url(secret_url: &Secret) -> Result<Self, JwksUrlError> {
        let url = Url::parse(secret_url.expose()).map_err(JwksUrlError::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(JwksUrlError::UnsupportedScheme);
        }
        let mut client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(FETCH_TIMEOUT);
        if url.scheme() == "http" {
            tracing::warn!(
                "JWKS_URL does not use https: anyone on the network path can replace the keys"
            );
            // Without TLS there is nothing to verify, so the machine need not have
            // root certificates.
            client = client.tls_certs_only([]);
        }
        Ok(Self::Url {
            client: client.build().map_err(JwksUrlError::Tls)?,
            url,
            redacted_url: secret_url.redacted_url(),
        })
    }

    pub(super) fn poll_interval(&self) -> Duration {
        match self {
            Self::File { .. } => FILE_POLL_INTERVAL,
            Self::Url { .. } => URL_POLL_INTERVAL,
        }
    }

    /// The current set; `None` if it is a file that has not changed.
    pub(super) async fn read(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        match self {
            Self::File { path, last_read } => read_file(path, last_read).await,
            Self::Url { client, url, .. } => fetch(client, url).await.map(Some),
        }
    }
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "JWKS_FILE {}", path.display()),
            Self::Url { redacted_url, .. } => write!(f, "JWKS_URL {redacted_url}"),
        }
    }
}

async fn read_file(
    path: &Path,
    last_read: &mut Option<(SystemTime, u64)>,
) -> Result<Option<Vec<u8>>, ReadError> {
    let file = tokio::fs::File::open(path).await?;
    let metadata = file.metadata().await?;
    let version = (metadata.modified()?, metadata.len());
    if *last_read == Some(version) {
        return Ok(None);
    }
    let mut set = Vec::new();
    // One byte more than the limit shows that the set is too long.
    file.take(MAX_SET_BYTES as u64 + 1)
        .read_to_end(&mut set)
        .await?;
    if set.len() > MAX_SET_BYTES {
        return Err(ReadError::TooLong);
    }
    // This is set even if the content turns out not to be a key set: reading the
    // same content again would give the same error.
    *last_read = Some(version);
    Ok(Some(set))
}

async fn fetch(client: &Client, url: &Url) -> Result<Vec<u8>, ReadError> {
    // The errors must not contain the URL, which may be secret.
    let http_error = |error: reqwest::Error| ReadError::Http(error.without_url());
    let mut response = client.get(url.clone()).send().await.map_err(http_error)?;
    if response.status() != StatusCode::OK {
        return Err(ReadError::Status(response.status()));
    }
    let mut set = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(http_error)? {
        if set.len() + chunk.len() > MAX_SET_BYTES {
            return Err(ReadError::TooLong);
        }
        set.extend_from_slice(&chunk);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use eventlog::error::error_chain;

    use super::*;

    #[test]
    fn only_http_urls_are_accepted() {
        let url = |text: &str| JwksSource::from_url(&Secret::from(text.to_owned()));
        assert!(url("http://issuer.example/jwks.json").is_ok());
        for rejected in ["", "issuer", "file:///etc/passwd", "ftp://issuer/jwks.json"] {
            assert!(url(rejected).is_err(), "{rejected}");
        }
    }

    #[tokio::test]
    async fn error_and_source_do_not_contain_the_password() {
        // Nothing listens on the discard port.
        let url = "http://me:s3cr3t@127.0.0.1:9/jwks.json".to_owned();
        let mut source = JwksSource::from_url(&Secret::from(url)).unwrap();
        let error = error_chain(&source.read().await.unwrap_err());
        assert!(!error.contains("s3cr3t"), "{error}");
        let source = source.to_string();
        assert!(source.contains("JWKS_URL http://me:(hidden)@"), "{source}");
        assert!(!source.contains("s3cr3t"), "{source}");
    }

    #[tokio::test]
    async fn file_is_read_again_only_after_a_change() {
        let path = std::env::temp_dir().join(format!("jwks-{}", uuid::Uuid::new_v4()));
        let mut source = JwksSource::from_file(path.clone());
        assert!(source.read().await.is_err());
        std::fs::write(&path, "one").unwrap();
        assert_eq!(source.read().await.unwrap(), Some(b"one".to_vec()));
        assert_eq!(source.read().await.unwrap(), None);
        std::fs::write(&path, "three").unwrap();
        assert_eq!(source.read().await.unwrap(), Some(b"three".to_vec()));
        std::fs::write(&path, "x".repeat(MAX_SET_BYTES + 1)).unwrap();
        assert!(source.read().await.is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
