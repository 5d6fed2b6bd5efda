//! An identity provider's public keys: a JSON Web Key Set (RFC 7517) behind a URL, or in a file.
//!
//! They are asked for when the first token needs them, kept, and asked for again when a token names a
//! key that is not among them (the provider changed its keys), or now and then. Between two questions
//! there is a pause, so that made-up key ids cost the provider nothing. While it does not answer, the
//! keys it had count.

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
    clock,
    config::{JwksConfig, JwksSource},
    error::{ApiError, Code},
    telemetry,
};

/// The largest key set, in bytes.
const MAX_BODY: usize = 128 * 1024;

/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 64;

/// How long the provider may take to answer: a client waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);

/// Keys that are older are asked for again: the provider may have withdrawn one.
const MAX_AGE: Duration = Duration::from_secs(600);

/// While there are no keys at all nobody can come in, and the pause is no longer than this.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Why there are no (new) keys.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file.
    #[error("AUTH_JWKS_FILE: {path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The URL.
    #[error("AUTH_JWKS_URL: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// It is larger than a key set can be.
    #[error("the key set has more than {MAX_BODY} bytes")]
    TooLarge,
    /// Not JSON, or without `keys`.
    #[error("not a key set: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// None of its keys is for RS256, ES256 or EdDSA.
    #[error("the key set has no key for RS256, ES256 or EdDSA")]
    NoKeys,
}

/// The keys of one provider.
pub struct KeySet {
    source: JwksSource,
    http: reqwest::Client,
    cache: RwLock<Cache>,
    /// Whoever has it asks; the others wait for what that brings.
    asking: Mutex<()>,
}

impl KeySet {
    /// The set that is configured. A file is read here, so that a bad one is found at the start.
    pub fn open(config: &JwksConfig) -> Result<Self, JwksError> {
        let http = reqwest::Client::builder()
            // A provider that sends us elsewhere could send us to plain HTTP.
            .redirect(Policy::none())
            .timeout(FETCH_TIMEOUT)
            // A connection that is used once in ten minutes is not worth keeping.
            .pool_max_idle_per_host(0)
            .build()?;
        let mut cache = Cache::new(config.cooldown);
        if let JwksSource::File(path) = &config.source {
            cache.loaded(parse(&read_file(path)?)?, clock::now());
        }
        Ok(Self { source: config.source.clone(), http, cache: RwLock::new(cache), asking: Mutex::new(()) })
    }

    /// The key of this name and algorithm; where a token names none, the only one of its algorithm.
    pub async fn find(
        self: &Arc<Self>,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<DecodingKey>, ApiError> {
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
            return Err(ApiError::new(
                Code::AuthUnavailable,
                "the identity provider's keys cannot be had; try again",
            ));
        }
        Ok(cache.find(id, algorithm))
    }

    /// Asks the provider, unless somebody else has asked since this was found to be due.
    async fn refresh(&self, due_at: Instant) {
        let _turn = self.asking.lock().await;
        if self.cache.read().asked_at.is_some_and(|at| at >= due_at) {
            return;
        }
        let loaded = self.load().await;
        let outcome = if loaded.is_ok() { "answered" } else { "failed" };
        metrics::counter!(telemetry::KEY_SETS, "outcome" => outcome).increment(1);
        let mut cache = self.cache.write();
        match loaded {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "the identity provider's keys are here");
                cache.loaded(keys, clock::now());
            }
            Err(error) => {
                tracing::warn!(%error, kept = cache.keys.len(), "no new keys of the identity provider");
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
        // A URL may have a key in it: errors are told without.
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

/// The keys that are here, and when to ask for others. Pure.
struct Cache {
    keys: Vec<Key>,
    /// When they came.
    loaded_at: Option<Instant>,
    /// When the last answer came, or failed to.
    asked_at: Option<Instant>,
    cooldown: Duration,
}

impl Cache {
    const fn new(cooldown: Duration) -> Self {
        Self { keys: Vec::new(), loaded_at: None, asked_at: None, cooldown }
    }

    fn loaded(&mut self, keys: Vec<Key>, now: Instant) {
        self.keys = keys;
        self.loaded_at = Some(now);
        self.asked_at = Some(now);
    }

    fn failed(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// Whether the provider may be asked again.
    fn is_due(&self, now: Instant) -> bool {
        let pause = if self.loaded_at.is_some() { self.cooldown } else { self.cooldown.min(FIRST_PAUSE) };
        self.asked_at.is_none_or(|at| now >= at + pause)
    }

    /// Whether the keys are from long ago.
    fn is_old(&self, now: Instant) -> bool {
        self.loaded_at.is_some_and(|at| now >= at + MAX_AGE)
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        let first = fitting.next()?;
        // Two keys of one name are the provider's mistake; without a name the choice would be a guess.
        fitting.next().is_none().then(|| first.key.clone())
    }
}

/// A public key and the one algorithm that it is for.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The keys of a set that can be used. Others are passed over (RFC 7517 §5).
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
        // A shared secret has no place in a public document.
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
    fn each_key_has_one_algorithm_by_its_kind_and_what_cannot_be_used_is_passed_over() {
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
    fn a_key_is_found_by_its_name_and_without_one_where_there_is_no_choice() {
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
    fn between_two_questions_there_is_a_pause_that_is_short_while_there_are_no_keys() {
        let (mut cache, now) = (Cache::new(COOLDOWN), clock::now());
        assert!(cache.is_due(now), "the first token asks");
        cache.failed(now);
        assert!(!cache.is_due(now));
        assert!(cache.is_due(now + FIRST_PAUSE));

        cache.loaded(parsed(&json!([rsa("a")])).unwrap(), now);
        assert!(!cache.is_due(now + FIRST_PAUSE));
        assert!(cache.is_due(now + COOLDOWN));
        cache.failed(now + COOLDOWN);
        assert!(cache.find(Some("a"), Algorithm::RS256).is_some(), "the last good keys stay");
        assert!(!cache.is_due(now + COOLDOWN), "and are not asked for all the time");
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
