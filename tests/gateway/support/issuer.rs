//! An identity provider: it signs tokens, and serves its public keys over HTTP.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

/// A key of the provider's.
pub struct Signer {
    id: String,
    key: Key,
}

enum Key {
    Rs256(Box<RsaKeyPair>),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

/// A token put together from its parts, as anybody can who knows how.
pub fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature))
}

impl Signer {
    pub fn rs256(id: &str) -> Self {
        Self { id: id.into(), key: Key::Rs256(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())) }
    }

    pub fn es256(id: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id: id.into(), key: Key::Es256(key) }
    }

    pub fn eddsa(id: &str) -> Self {
        Self { id: id.into(), key: Key::EdDsa(Ed25519KeyPair::generate().unwrap()) }
    }

    fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Rs256(_) => "RS256",
            Key::Es256(_) => "ES256",
            Key::EdDsa(_) => "EdDSA",
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Key::Es256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::EdDsa(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.id});
        token(&header, claims, |message| self.sign(message))
    }

    /// The public key, as it is written down.
    pub fn public(&self) -> Vec<u8> {
        match &self.key {
            Key::Rs256(key) => key.public_key().as_ref().to_vec(),
            Key::Es256(key) => key.public_key().as_ref().to_vec(),
            Key::EdDsa(key) => key.public_key().as_ref().to_vec(),
        }
    }

    pub fn jwk(&self) -> Value {
        let public = self.public();
        let mut jwk = match &self.key {
            Key::Rs256(key) => json!({
                "kty": "RSA",
                "n": BASE64.encode(key.public_key().modulus().big_endian_without_leading_zero()),
                "e": BASE64.encode(key.public_key().exponent().big_endian_without_leading_zero()),
            }),
            // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
            Key::Es256(_) => json!({
                "kty": "EC", "crv": "P-256",
                "x": BASE64.encode(&public[1..33]), "y": BASE64.encode(&public[33..65]),
            }),
            Key::EdDsa(_) => json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(public)}),
        };
        jwk["kid"] = self.id.as_str().into();
        jwk["use"] = "sig".into();
        jwk
    }
}

pub fn key_set(signers: &[&Signer]) -> Value {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()})
}

/// The server.
pub struct Issuer {
    pub url: String,
    state: Arc<State>,
    server: actix_web::dev::ServerHandle,
}

struct State {
    /// The status and the body of every answer.
    answer: Mutex<(u16, String)>,
    asked: AtomicUsize,
}

impl Issuer {
    pub async fn start(signers: &[&Signer]) -> Self {
        let answer = Mutex::new((200, key_set(signers).to_string()));
        let state = Arc::new(State { answer, asked: AtomicUsize::new(0) });
        let shared = state.clone();
        let server = HttpServer::new(move || {
            App::new().app_data(web::Data::from(shared.clone())).route("/keys", web::get().to(keys))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let url = format!("http://{}/keys", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { url, state, server: handle }
    }

    pub fn publish(&self, signers: &[&Signer]) {
        self.answer(200, &key_set(signers).to_string());
    }

    pub fn answer(&self, status: u16, body: &str) {
        *self.state.answer.lock().unwrap() = (status, body.to_owned());
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

async fn keys(state: web::Data<State>) -> HttpResponse {
    state.asked.fetch_add(1, Ordering::SeqCst);
    let (status, body) = state.answer.lock().unwrap().clone();
    let mut answer = HttpResponse::build(actix_web::http::StatusCode::from_u16(status).unwrap());
    if status == 302 {
        answer.insert_header(("Location", body.clone()));
    }
    answer.content_type("application/json").body(body)
}
