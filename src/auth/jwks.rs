//! An identity provider's public keys: a JSON Web Key Set (RFC 7517) behind a URL, or in a file.
//!
//! They are fetched when the first token needs them, cached, and fetched again when a token names an unknown key
//! (the provider changed its keys) or the cache is old. A cooldown separates two fetches, so that invented key ids
//! cause no load. While the provider does not answer, the cached keys stay in use.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use parking_lot::RwLock;
use reqwest::{header::ACCEPT, redirect::Policy};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    auth::AuthError,
    clock,
    config::{JwksConfig, JwksSource},
    telemetry,
};

/// The largest key set, in bytes.
const MAX_BODY: usize = 128 * 1024;

/// The most keys of a set that are read.
const MAX_KEYS: usize = 64;

/// How long the provider may take to answer. A client waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);

/// Older keys are fetched again: the provider may have withdrawn one.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The longest cooldown while there are no keys: until then no token can be verified.
const FIRST_COOLDOWN: Duration = Duration::from_secs(2);

/// Why keys cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file cannot be read.
    #[error("AUTH_JWKS_FILE: {path}: {cause}")]
    File { path: PathBuf, cause: std::io::Error },
    /// The URL cannot be fetched.
    #[error("AUTH_JWKS_URL: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// More than [`MAX_BODY`] bytes.
    #[error("the key set has more than {MAX_BODY} bytes")]
    TooLarge,
    /// Not JSON, or without `keys`.
    #[error("not a key set: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// No key for RS256, ES256 or EdDSA.
    #[error("the key set has no key for RS256, ES256 or EdDSA")]
    NoKeys,
}

/// The keys of one provider.
pub(super) struct KeySet {
    source: JwksSource,
    http: reqwest::Client,
    cache: RwLock<Cache>,
    /// Held while fetching: at most one fetch at a time.
    fetching: Mutex<()>,
}

impl KeySet {
    /// Reads a file at once, so that an invalid one is reported at the start.
    pub(super) fn open(config: &JwksConfig) -> Result<Self, JwksError> {
        let http = reqwest::Client::builder()
            // A redirect could lead to plain HTTP.
            .redirect(Policy::none())
            .timeout(FETCH_TIMEOUT)
            // Used once in ten minutes: not worth keeping open.
            .pool_max_idle_per_host(0)
            .build()?;
        let mut cache = Cache::new(config.cooldown);
        if let JwksSource::File(path) = &config.source {
            cache.loaded(parse(&read_file(path)?)?, clock::now());
        }
        Ok(Self { source: config.source.clone(), http, cache: RwLock::new(cache), fetching: Mutex::new(()) })
    }

    /// The key with this id and algorithm; without an id, the only one of the algorithm.
    pub(super) async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<DecodingKey>, AuthError> {
        let now = clock::now();
        let (found, due) = {
            let cache = self.cache.read();
            (cache.find(id, algorithm), cache.is_due(now))
        };
        if found.is_some() {
            if due && self.cache.read().is_old(now) {
                let keys = self.clone();
                tokio::spawn(async move { keys.refresh(now).await });
            }
            return Ok(found);
        }
        if due {
            self.refresh(now).await;
        }
        let cache = self.cache.read();
        if cache.loaded_at.is_none() {
            return Err(AuthError::Unavailable);
        }
        Ok(cache.find(id, algorithm))
    }

    /// Fetches the keys, unless another task has done so since `due_at`.
    async fn refresh(&self, due_at: Instant) {
        let _guard = self.fetching.lock().await;
        if self.cache.read().fetched_at.is_some_and(|at| at >= due_at) {
            return;
        }
        let loaded = self.load().await;
        let outcome = if loaded.is_ok() { "answered" } else { "failed" };
        metrics::counter!(telemetry::KEY_SETS, "outcome" => outcome).increment(1);
        let mut cache = self.cache.write();
        match loaded {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "loaded the identity provider's keys");
                cache.loaded(keys, clock::now());
            }
            Err(error) => {
                tracing::warn!(%error, kept = cache.keys.len(), "cannot load the identity provider's keys");
                cache.failed(clock::now());
            }
        }
    }

    async fn load(&self) -> Result<Vec<Key>, JwksError> {
        match &self.source {
            JwksSource::Url(url) => parse(&self.fetch(url).await?),
            JwksSource::File(path) => {
                let path = path.clone();
                let file = tokio::task::spawn_blocking(move || read_file(&path));
                parse(&file.await.expect("reading a file does not panic")?)
            }
        }
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>, JwksError> {
        // The URL may contain a key: it is left out of errors.
        let plain = |error: reqwest::Error| JwksError::from(error.without_url());
        let request = self.http.get(url).header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response =
            request.send().await.and_then(reqwest::Response::error_for_status).map_err(plain)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(plain)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(JwksError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, JwksError> {
    let mut body = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BODY as u64 + 1).read_to_end(&mut body))
        .map_err(|cause| JwksError::File { path: path.to_owned(), cause })?;
    if body.len() > MAX_BODY { Err(JwksError::TooLarge) } else { Ok(body) }
}

/// The cached keys, and when to fetch others. Pure.
struct Cache {
    keys: Vec<Key>,
    /// When they were loaded.
    loaded_at: Option<Instant>,
    /// When the last fetch ended, in success or failure.
    fetched_at: Option<Instant>,
    cooldown: Duration,
}

impl Cache {
    const fn new(cooldown: Duration) -> Self {
        Self { keys: Vec::new(), loaded_at: None, fetched_at: None, cooldown }
    }

    fn loaded(&mut self, keys: Vec<Key>, now: Instant) {
        self.keys = keys;
        self.loaded_at = Some(now);
        self.fetched_at = Some(now);
    }

    fn failed(&mut self, now: Instant) {
        self.fetched_at = Some(now);
    }

    /// Whether the cooldown is over.
    fn is_due(&self, now: Instant) -> bool {
        let cooldown =
            if self.loaded_at.is_some() { self.cooldown } else { self.cooldown.min(FIRST_COOLDOWN) };
        self.fetched_at.is_none_or(|at| now >= at + cooldown)
    }

    fn is_old(&self, now: Instant) -> bool {
        self.loaded_at.is_some_and(|at| now >= at + MAX_AGE)
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        let first = fitting.next()?;
        // Two keys with one id are an error of the provider; without an id the choice would be a guess.
        fitting.next().is_none().then(|| first.key.clone())
    }
}

/// A public key, and the one algorithm that it may be used with.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The usable keys of a set. Others are ignored (RFC 7517 §5).
fn parse(body: &[u8]) -> Result<Vec<Key>, JwksError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(body)?;
    let keys: Vec<Key> = set.keys.into_iter().take(MAX_KEYS).filter_map(key).collect();
    if keys.is_empty() { Err(JwksError::NoKeys) } else { Ok(keys) }
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        // `OctetKey` is a shared secret: never accepted from a public document.
        AlgorithmParameters::EllipticCurve(_)
        | AlgorithmParameters::OctetKeyPair(_)
        | AlgorithmParameters::OctetKey(_) => return None,
    };
    let common = &jwk.common;
    let for_this = common.key_algorithm.is_none_or(|algorithm| algorithm == named);
    let for_signatures =
        common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let for_verifying =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !(for_this && for_signatures && for_verifying) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { id: jwk.common.key_id, algorithm, key })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(30);

    fn parsed(keys: &Value) -> Result<Vec<Key>, JwksError> {
        parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn rsa(id: &str) -> Value {
        json!({"kty": "RSA", "kid": id, "n": "AQAB", "e": "AQAB"})
    }

    #[test]
    fn each_key_has_one_algorithm_by_its_kind_and_unusable_keys_are_ignored() {
        let keys = parsed(&json!([
            rsa("r"),
            {"kty": "EC", "crv": "P-256", "kid": "e", "x": "AQAB", "y": "AQAB", "use": "sig"},
            {"kty": "OKP", "crv": "Ed25519", "kid": "d", "x": "AQAB", "key_ops": ["verify"]},
            {"kty": "oct", "kid": "secret", "k": "AQAB"},
            {"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AQAB", "y": "AQAB"},
            {"kty": "RSA", "kid": "enc", "n": "AQAB", "e": "AQAB", "use": "enc"},
            {"kty": "RSA", "kid": "ps", "n": "AQAB", "e": "AQAB", "alg": "PS256"},
            {"kty": "AKP", "kid": "of tomorrow", "pub": "AQAB"},
            "nonsense",
        ]))
        .unwrap();
        let found: Vec<_> = keys.iter().map(|key| (key.id.as_deref().unwrap(), key.algorithm)).collect();
        assert_eq!(found, [("r", Algorithm::RS256), ("e", Algorithm::ES256), ("d", Algorithm::EdDSA)]);
        assert!(matches!(parsed(&json!([])), Err(JwksError::NoKeys)));
    }

    #[test]
    fn a_key_is_found_by_its_id_and_without_one_if_there_is_only_one() {
        let mut cache = Cache::new(COOLDOWN);
        cache.loaded(parsed(&json!([rsa("a")])).unwrap(), clock::now());
        assert!(cache.find(Some("a"), Algorithm::RS256).is_some());
        assert!(cache.find(None, Algorithm::RS256).is_some());
        assert!(cache.find(Some("b"), Algorithm::RS256).is_none());
        assert!(cache.find(Some("a"), Algorithm::ES256).is_none(), "a key is for its own algorithm");

        cache.loaded(parsed(&json!([rsa("a"), rsa("b")])).unwrap(), clock::now());
        assert!(cache.find(None, Algorithm::RS256).is_none());
        assert!(cache.find(Some("b"), Algorithm::RS256).is_some());
    }

    #[test]
    fn a_cooldown_separates_two_fetches_and_is_short_while_there_are_no_keys() {
        let (mut cache, now) = (Cache::new(COOLDOWN), clock::now());
        assert!(cache.is_due(now), "the first token causes a fetch");
        cache.failed(now);
        assert!(!cache.is_due(now));
        assert!(cache.is_due(now + FIRST_COOLDOWN));

        cache.loaded(parsed(&json!([rsa("a")])).unwrap(), now);
        assert!(!cache.is_due(now + FIRST_COOLDOWN));
        assert!(cache.is_due(now + COOLDOWN));
        cache.failed(now + COOLDOWN);
        assert!(cache.find(Some("a"), Algorithm::RS256).is_some(), "the last good keys stay in use");
        assert!(!cache.is_due(now + COOLDOWN), "a failed fetch starts a cooldown, too");
        assert!(cache.is_old(now + MAX_AGE) && !cache.is_old(now));
    }

    proptest! {
        #[test]
        fn no_key_set_makes_the_reader_panic(body in "\\PC{0,200}", x in "\\PC{0,40}") {
            let _ = parse(body.as_bytes());
            let _ = parsed(&json!([{"kty": "EC", "crv": "P-256", "x": x, "y": x}, {"kty": "RSA", "n": x, "e": x}]));
        }
    }
}
