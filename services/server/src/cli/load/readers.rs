//! The readers of the load test and their tokens: from a file, or new readers whose tokens
//! this process signs.
//!
//! A reader belongs to one user at a time. The ids of new readers are numbered, so that the
//! process need not remember them to erase them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use api::auth::{self, AdminAccess, ExpectedClaims};
use api::secret::Secret;
use uuid::{Builder, Uuid};

/// Bytes of an id that contain the number of a new reader; the others are those of the run.
const NUMBER_BYTES: usize = 6;

/// A reader's token. `Debug` hides it.
pub type Token = Secret;

pub enum Readers {
    Listed(ListedReaders),
    New(NewReaders),
}

/// Readers whose tokens are in a file.
pub struct ListedReaders {
    /// The readers that belong to no user. Users take the first.
    free: Mutex<VecDeque<Token>>,
    count: usize,
}

/// Readers that exist only for this run.
pub struct NewReaders {
    secret: Secret,
    claims: ExpectedClaims,
    /// Unix time in seconds at which the tokens expire.
    expires_at: i64,
    /// The id of the reader with the number 0.
    first: Uuid,
    taken: AtomicU64,
}

impl Readers {
    /// The token of the first reader, which a user gets later.
    ///
    /// # Errors
    /// If tokens cannot be signed.
    pub fn first(&self) -> anyhow::Result<Token> {
        match self {
            Self::Listed(listed) => {
                let free = listed.free();
                free.front().cloned().context("the file contains no token")
            }
            Self::New(new) => new.try_token(0),
        }
    }

    /// A reader for a new user. There are as many as users.
    pub fn take(&self) -> Token {
        match self {
            Self::Listed(listed) => {
                let free = listed.free().pop_front();
                free.expect("there are at least as many tokens as users")
            }
            Self::New(new) => new.token(new.taken.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Another reader for a user that has this one.
    pub fn exchange(&self, token: &Token) -> Token {
        if let Self::Listed(listed) = self {
            listed.free().push_back(token.clone());
        }
        self.take()
    }
}

impl ListedReaders {
    /// Reads a file with one token per line. Empty lines and lines that begin with `#` are
    /// ignored.
    ///
    /// # Errors
    /// If the file cannot be read, or contains fewer tokens than there are users.
    pub async fn from_file(path: &Path, users: usize) -> anyhow::Result<Self> {
        let text = tokio::fs::read_to_string(path).await;
        let text = text.with_context(|| format!("reading {} failed", path.display()))?;
        let free = parse(&text)?;
        let count = free.len();
        ensure!(
            count >= users,
            "{} contains {count} tokens for {users} users; each user needs a reader of its own; \
             add tokens, or lower --users",
            path.display()
        );
        let free = Mutex::new(free);
        Ok(Self { free, count })
    }

    pub const fn count(&self) -> usize {
        self.count
    }

    fn free(&self) -> std::sync::MutexGuard<'_, VecDeque<Token>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tokens of a file.
fn parse(text: &str) -> anyhow::Result<VecDeque<Token>> {
    let mut tokens = VecDeque::new();
    for (index, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        ensure!(
            token.bytes().all(|byte| byte.is_ascii_graphic()),
            "line {} is not a token",
            index + 1
        );
        tokens.push_back(Token::from(token.to_owned()));
    }
    Ok(tokens)
}

impl NewReaders {
    pub fn new(secret: Secret, claims: ExpectedClaims, expires_at: i64) -> Self {
        Self {
            secret,
            claims,
            expires_at,
            first: reader_id(Uuid::new_v4(), 0),
            taken: AtomicU64::new(0),
        }
    }

    /// The number of readers so far.
    pub fn count(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The id of a reader by its number, from 0 on.
    pub fn id(&self, number: u64) -> Uuid {
        reader_id(self.first, number)
    }

    /// A shell command that erases all readers so far.
    pub fn erase_command(&self) -> String {
        let id = self.first.to_string();
        let (run, _) = id.split_at(id.len() - 2 * NUMBER_BYTES);
        let last = self.count().saturating_sub(1);
        format!(
            "for n in $(seq 0 {last}); do reading-sessions reader erase --yes \
             $(printf '{run}%012x' $n); done"
        )
    }

    pub fn token(&self, number: u64) -> Token {
        let token = self.try_token(number);
        token.expect("the first token was signed with the same secret")
    }

    fn try_token(&self, number: u64) -> anyhow::Result<Token> {
        let id = self.id(number).to_string();
        let token = auth::issue_token(
            &self.secret,
            &id,
            AdminAccess::None,
            &self.claims,
            self.expires_at,
        )?;
        Ok(Token::from(token))
    }
}

/// A random UUID with a number in its last bytes. It is the subject of the token, and the
/// service uses it as the reader's id.
fn reader_id(run: Uuid, number: u64) -> Uuid {
    let mut bytes = run.into_bytes();
    let split = bytes.len() - NUMBER_BYTES;
    bytes[split..].copy_from_slice(&number.to_be_bytes()[8 - NUMBER_BYTES..]);
    Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_readers() -> NewReaders {
        let secret = Secret::from("a secret of at least thirty-two bytes".to_owned());
        NewReaders::new(secret, ExpectedClaims::default(), 2_000_000_000)
    }

    #[test]
    fn file_contains_a_token_per_line() {
        let tokens = parse("# readers\na.b.c\n\n  d.e.f \r\n").unwrap();
        let tokens: Vec<&str> = tokens.iter().map(Token::expose).collect();
        assert_eq!(tokens, ["a.b.c", "d.e.f"]);
        let error = parse("a.b.c\nBearer d.e.f\n").unwrap_err().to_string();
        assert_eq!(error, "line 2 is not a token");
    }

    #[tokio::test]
    async fn readers_of_a_file_are_taken_in_turn_and_never_shared() {
        let file = std::env::temp_dir().join(format!("tokens-{}", Uuid::new_v4()));
        std::fs::write(&file, "one\ntwo\nthree\n").unwrap();
        let too_few = ListedReaders::from_file(&file, 4).await;
        let listed = ListedReaders::from_file(&file, 2).await;
        std::fs::remove_file(&file).unwrap();
        let error = too_few.err().unwrap().to_string();
        assert!(error.contains("3 tokens for 4 users"), "{error}");

        let readers = Readers::Listed(listed.unwrap());
        let (one, two) = (readers.take(), readers.take());
        assert_eq!((one.expose(), two.expose()), ("one", "two"));
        assert_eq!(readers.exchange(&one).expose(), "three");
        assert_eq!(readers.exchange(&two).expose(), "one");
    }

    #[test]
    fn new_readers_have_numbered_ids_of_version_4() {
        let readers = new_readers();
        let (first, last) = (readers.id(0), readers.id(0x1_0203));
        assert_eq!(first.get_version_num(), 4);
        assert_eq!(last.get_version_num(), 4);
        assert!(last.to_string().ends_with("-000000010203"), "{last}");
        assert_eq!(first.to_string()[..24], last.to_string()[..24]);
        assert_ne!(new_readers().id(0), first);
    }

    #[test]
    fn erase_command_contains_the_ids_of_all_readers() {
        let readers = Readers::New(new_readers());
        for _ in 0..300 {
            readers.take();
        }
        let Readers::New(new) = readers else {
            unreachable!("the readers are new")
        };
        let command = new.erase_command();
        assert!(command.contains("seq 0 299"), "{command}");
        let (_, rest) = command.split_once('\'').unwrap();
        let (run, _) = rest.split_once("%012x'").unwrap();
        assert_eq!(format!("{run}{:012x}", 299), new.id(299).to_string());
    }
}
