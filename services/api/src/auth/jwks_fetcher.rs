//! Where a key set comes from, and how it is kept fresh: one task fetches, and
//! requests ask it. Whatever the issuer does, the last good set stays. This
//! never follows a redirect and never takes more than a set may be long.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use arc_swap::ArcSwapOption;
use jsonwebtoken::Validation;
use reqwest::{Client, Url, redirect};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::key_set::KeySet;
use crate::secret::Secret;

/// How long the issuer may take to answer, all in all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest set, in bytes.
const MAX_SET: usize = 256 * 1024;

/// How often an address is asked. A key that the issuer took back is to be
/// refused within five minutes, also when no new one comes into use.
const ASK_EVERY: Duration = Duration::from_mins(4);

/// How often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The pause after a failure: while nobody can call, and while the last keys
/// still serve.
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(2);
const PAUSE_WITH_KEYS: Duration = Duration::from_secs(30);

/// How long after tokens with an unknown key made it look, they cannot make it
/// look again: anybody can write such a token.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(30);

/// Requests that may wait to be heard.
const QUESTIONS: usize = 1_024;

/// A request that waits for a newer set: since when, and where to answer.
type Question = (Instant, oneshot::Sender<()>);

/// The origin of a set.
pub(super) enum Source {
    /// A file, and what it looked like when it was read.
    File(PathBuf, Option<(SystemTime, u64)>),
    /// An address; shown without its password.
    Url(Client, Url, Secret),
}

impl Source {
    /// A file.
    pub(super) fn file(path: PathBuf) -> Self {
        Self::File(path, None)
    }

    /// An address.
    ///
    /// # Errors
    /// When it is no address of http or https, or the system's certificates
    /// cannot be read.
    pub(super) fn url(address: Secret) -> anyhow::Result<Self> {
        // The parser's error does not repeat what it was given.
        let url = Url::parse(address.expose()).context("JWKS_URL is not an address")?;
        ensure!(
            matches!(url.scheme(), "http" | "https"),
            "JWKS_URL is not an address of https or http"
        );
        if url.scheme() == "http" {
            tracing::warn!("JWKS_URL is not https: whoever is on the way can replace the keys");
        }
        let mut client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT);
        if url.scheme() == "http" {
            // Nothing to verify: a machine without certificates will do.
            client = client.tls_certs_only([]);
        }
        let client = client
            .build()
            .context("JWKS_URL: https cannot be set up here")?;
        Ok(Self::Url(client, url, address))
    }

    fn interval(&self) -> Duration {
        match self {
            Self::File(..) => LOOK_EVERY,
            Self::Url(..) => ASK_EVERY,
        }
    }

    /// The set as it is now; `None` when it surely has not changed.
    async fn read(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::File(path, seen) => read_file(path, seen)
                .await
                .with_context(|| format!("JWKS_FILE {}", path.display())),
            Self::Url(client, url, shown) => fetch(client, url)
                .await
                .map(Some)
                .with_context(|| format!("JWKS_URL {}", shown.as_address())),
        }
    }
}

async fn read_file(
    path: &PathBuf,
    seen: &mut Option<(SystemTime, u64)>,
) -> anyhow::Result<Option<Vec<u8>>> {
    let file = tokio::fs::File::open(path).await?;
    let metadata = file.metadata().await?;
    let looks = (metadata.modified()?, metadata.len());
    if *seen == Some(looks) {
        return Ok(None);
    }
    let mut set = Vec::new();
    // One more than allowed tells a set that is too long from one that fits.
    file.take(MAX_SET as u64 + 1).read_to_end(&mut set).await?;
    ensure!(set.len() <= MAX_SET, "it is longer than {MAX_SET} bytes");
    // Remembered also when it turns out to be no set: it is the same mistake
    // until it changes.
    *seen = Some(looks);
    Ok(Some(set))
}

async fn fetch(client: &Client, url: &Url) -> anyhow::Result<Vec<u8>> {
    let mut answer = client
        .get(url.clone())
        .send()
        .await
        .map_err(reqwest::Error::without_url)?;
    ensure!(answer.status() == 200, "it answered {}", answer.status());
    let mut set = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        ensure!(
            set.len() + part.len() <= MAX_SET,
            "it is longer than {MAX_SET} bytes"
        );
        set.extend_from_slice(&part);
    }
    Ok(set)
}

/// The current set, and a way to ask for a newer one.
pub(super) struct Fresh {
    set: Arc<ArcSwapOption<KeySet>>,
    questions: mpsc::Sender<Question>,
}

impl Fresh {
    /// Starts the task that keeps the set. It ends with the last handle.
    pub(super) fn start(source: Source, rules: Validation) -> Self {
        let set = Arc::new(ArcSwapOption::empty());
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let keeper = Keeper {
            source,
            rules,
            set: Arc::clone(&set),
            last: None,
        };
        tokio::spawn(keeper.run(asked));
        Self { set, questions }
    }

    /// The last good set; `None` before the first.
    pub(super) fn set(&self) -> Option<Arc<KeySet>> {
        self.set.load_full()
    }

    /// Asks for a newer set and waits until there is one, or none to be had
    /// now. Whoever asks while one is being fetched waits for that one.
    pub(super) async fn ask(&self) {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            let question = (Instant::now(), answer);
            if self.questions.send(question).await.is_ok() {
                // Without an answer the set is what it is.
                let _ = answered.await;
            }
        };
        let _ = timeout(TIMEOUT, asking).await;
    }
}

/// The task's own state: being one task, it fetches one thing at a time, and
/// no request that goes away can stop a fetch for the others.
struct Keeper {
    source: Source,
    rules: Validation,
    set: Arc<ArcSwapOption<KeySet>>,
    /// What the set was made of.
    last: Option<Vec<u8>>,
}

impl Keeper {
    async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        let mut unknown_key: Option<Instant> = None;
        let mut answer: Option<oneshot::Sender<()>> = None;
        loop {
            let wait = match self.refresh().await {
                Ok(()) => self.source.interval(),
                Err(error) => {
                    let (error, keys) = (format!("{error:#}"), self.keys());
                    tracing::warn!(error, keys, "the keys of tokens were not read");
                    match keys {
                        0 => PAUSE_WITHOUT_KEYS,
                        _ => PAUSE_WITH_KEYS.min(self.source.interval()),
                    }
                }
            };
            let finished = Instant::now();
            if let Some(answer) = answer.take() {
                let _ = answer.send(());
            }
            answer = loop {
                let question = tokio::select! {
                    // A set that is due comes before questions about it.
                    biased;
                    () = sleep_until(finished + wait) => break None,
                    question = questions.recv() => question,
                };
                let Some((since, question)) = question else {
                    return;
                };
                // Before the first set no key is known, and the pauses alone
                // say when to try again.
                if self.keys() > 0
                    && since > finished
                    && unknown_key.is_none_or(|at| at.elapsed() >= UNKNOWN_KEY_PAUSE)
                {
                    unknown_key = Some(Instant::now());
                    break Some(question);
                }
                let _ = question.send(());
            };
        }
    }

    /// How many keys are known.
    fn keys(&self) -> usize {
        self.set.load().as_ref().map_or(0, |set| set.len())
    }

    async fn refresh(&mut self) -> anyhow::Result<()> {
        let Some(json) = self.source.read().await? else {
            return Ok(());
        };
        // The same set again: its verified tokens stay known, and what is
        // wrong with it is not said twice.
        if self.last.as_ref() == Some(&json) {
            return Ok(());
        }
        let set = KeySet::parse(&json, &self.rules)?;
        tracing::info!(keys = set.len(), "the keys of tokens were read");
        self.set.store(Some(Arc::new(set)));
        self.last = Some(json);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_web_are_asked() {
        let url = |text: &str| Source::url(Secret::from(text.to_owned()));
        assert!(url("http://issuer.example/jwks.json").is_ok());
        for refused in ["", "issuer", "file:///etc/passwd", "ftp://issuer/jwks.json"] {
            assert!(url(refused).is_err(), "{refused}");
        }
    }

    #[tokio::test]
    async fn an_error_shows_the_address_without_its_password() {
        // Nothing listens on the discard port.
        let address = "http://me:s3cr3t@127.0.0.1:9/jwks.json".to_owned();
        let mut source = Source::url(Secret::from(address)).unwrap();
        let error = format!("{:#}", source.read().await.unwrap_err());
        assert!(error.contains("JWKS_URL http://me:(hidden)@"), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_read_again_only_when_it_changed() {
        let path = std::env::temp_dir().join(format!("jwks-{}", uuid::Uuid::new_v4()));
        let mut source = Source::file(path.clone());
        assert!(source.read().await.is_err());
        std::fs::write(&path, "one").unwrap();
        assert_eq!(source.read().await.unwrap(), Some(b"one".to_vec()));
        assert_eq!(source.read().await.unwrap(), None);
        std::fs::write(&path, "three").unwrap();
        assert_eq!(source.read().await.unwrap(), Some(b"three".to_vec()));
        std::fs::write(&path, "x".repeat(MAX_SET + 1)).unwrap();
        assert!(source.read().await.is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
