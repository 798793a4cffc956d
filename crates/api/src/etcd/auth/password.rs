//! Hashes of passwords, and tokens.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring::rand::SecureRandom as _;
use ring::{hmac, pbkdf2, rand};
use tokio::sync::Semaphore;
use tonic::Status;

use super::state::{State, User};
use crate::error::internal;
use crate::etcd::error;

/// What OWASP recommends for PBKDF2 with SHA-256.
const ROUNDS: u32 = 600_000;
const ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Hashes computed at once, so that guessing does not take all processors.
const AT_ONCE: usize = 1;
/// How long a token is good for. Many clients never ask for a second one.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A password, as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PasswordHash {
    #[prost(uint32, tag = "1")]
    rounds: u32,
    #[prost(bytes = "bytes", tag = "2")]
    salt: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    hash: Bytes,
}

impl PasswordHash {
    fn new(password: &str, rounds: NonZeroU32) -> Result<Self, Status> {
        let salt = random(SALT_BYTES)?;
        let mut hash = vec![0; HASH_BYTES];
        pbkdf2::derive(ALGORITHM, rounds, &salt, password.as_bytes(), &mut hash);
        Ok(Self { rounds: rounds.get(), salt, hash: hash.into() })
    }

    fn matches(&self, password: &str) -> bool {
        let Some(rounds) = NonZeroU32::new(self.rounds) else { return false };
        pbkdf2::verify(ALGORITHM, rounds, &self.salt, password.as_bytes(), &self.hash).is_ok()
    }
}

/// Hashes passwords off the threads that serve, few at a time.
#[derive(Clone)]
pub(crate) struct Hasher {
    permits: Arc<Semaphore>,
    rounds: NonZeroU32,
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(ROUNDS)
    }
}

impl Hasher {
    pub(crate) fn new(rounds: u32) -> Self {
        let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)), rounds }
    }

    pub(crate) async fn hash(&self, password: &str) -> Result<PasswordHash, Status> {
        let (password, rounds) = (password.to_owned(), self.rounds);
        self.run(move || PasswordHash::new(&password, rounds)).await?
    }

    /// Is it the password of `user`? Takes as long when there is no such user.
    pub(crate) async fn verify(&self, user: Option<&User>, password: &str) -> Result<bool, Status> {
        let known = user.and_then(|user| user.password.clone());
        let (password, rounds) = (password.to_owned(), self.rounds);
        self.run(move || match known {
            Some(hash) => Ok(hash.matches(&password)),
            None => PasswordHash::new(&password, rounds).map(|_| false),
        })
        .await?
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| error::stopped())?;
        // Task "password hash": its failure is the request's. The permit is held until it is
        // done, even when the caller has gone.
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(internal)
    }
}

fn random(bytes: usize) -> Result<Bytes, Status> {
    let mut filled = vec![0; bytes];
    rand::SystemRandom::new().fill(&mut filled).map_err(|_| internal("no random numbers"))?;
    Ok(filled.into())
}

/// The key that signs tokens.
pub(crate) fn new_secret() -> Result<Bytes, Status> {
    random(HASH_BYTES)
}

/// A token that every master accepts: "EXPIRY.SIGNATURE.NAME", with the seconds since the epoch.
/// It ends with its user's password.
pub(crate) fn token(state: &State, user: &User) -> String {
    let expiry = now() + TOKEN_LIFE.as_secs();
    let signature = hmac::sign(&key(state), &signed_text(user, expiry));
    let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{expiry}.{hex}.{}", user.name)
}

/// The user whom a token names, when the token is good.
pub(crate) fn token_user<'s>(state: &'s State, token: &str) -> Option<&'s User> {
    let (expiry, rest) = token.split_once('.')?;
    let (signature, name) = rest.split_once('.')?;
    let expiry: u64 = expiry.parse().ok()?;
    if expiry < now() {
        return None;
    }
    let user = state.user(name).ok()?;
    hmac::verify(&key(state), &signed_text(user, expiry), &unhex(signature)?).ok()?;
    Some(user)
}

fn key(state: &State) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &state.secret)
}

fn signed_text(user: &User, expiry: u64) -> Vec<u8> {
    let password = user.password.as_ref().map(|password| password.hash.as_ref());
    [&expiry.to_be_bytes(), password.unwrap_or_default(), user.name.as_bytes()].concat()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn now() -> u64 {
    u64::try_from(quorate_objects::time::timestamp().as_second()).unwrap_or_default()
}
