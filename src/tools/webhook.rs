//! Tools that a backend answers: a signed POST to a URL that the operator allows.
//!
//! Signed as by Standard Webhooks 1.0.0 (<https://www.standardwebhooks.com>): `webhook-id`, `webhook-timestamp` in seconds,
//! and `webhook-signature`, the base64 of HMAC-SHA256 over the three of `id.timestamp.body`. docs/TOOLS.md has an example.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use reqwest::{Client, Url, header::CONTENT_TYPE};
use serde_json::json;
use sha2::Sha256;

use crate::{
    clock,
    providers::{
        http,
        llm::{Image, MAX_IMAGE_BYTES},
    },
    secret::Secret,
    tools::{Invocation, MAX_OUTPUT_BYTES, ToolOutput},
};

/// What a secret begins with, and how many bytes it has, both by Standard Webhooks.
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Which URLs are called, and how the calls are signed.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    pub urls: Vec<AllowedUrl>,
    pub secret: WebhookSecret,
}

/// The key of the signatures.
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// `whsec_` and 24 to 64 bytes in base64.
    pub fn parse(secret: &Secret) -> Result<Self, String> {
        let key = secret.expose().strip_prefix(SECRET_PREFIX);
        let key = key.and_then(|base64| BASE64_STANDARD.decode(base64).ok());
        let problem = || {
            let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            format!("must be {SECRET_PREFIX} and {min} to {max} bytes in base64")
        };
        key.filter(|key| SECRET_BYTES.contains(&key.len())).map(Self).ok_or_else(problem)
    }

    /// The value of `webhook-signature`.
    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

/// A URL that the operator allows: this one, or where it ends with a slash, all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedUrl(Url);

impl AllowedUrl {
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = parse(text)?;
        match url.query() {
            Some(_) => Err("must have no query".into()),
            None => Ok(Self(url)),
        }
    }

    fn allows(&self, url: &Url) -> bool {
        let (allowed, path) = (&self.0, url.path());
        let is_below = allowed.path().ends_with('/') && path.starts_with(allowed.path());
        allowed.origin() == url.origin() && (is_below || path == allowed.path())
    }
}

/// A URL that can be compared: `..` is resolved, and nothing hides a slash.
fn parse(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let path = url.path().to_ascii_lowercase();
    let has_user = !url.username().is_empty() || url.password().is_some();
    match () {
        () if !["http", "https"].contains(&url.scheme()) => Err("must begin with https:// or http://".into()),
        () if has_user || url.fragment().is_some() => Err("must have no user and no fragment".into()),
        () if path.contains("%2f") || path.contains("%5c") => Err("must have no encoded slash".into()),
        () => Ok(url),
    }
}

/// Calls webhooks.
#[derive(Debug)]
pub(super) struct Webhooks {
    config: WebhookConfig,
    client: Client,
}

impl Webhooks {
    pub(super) fn new(config: WebhookConfig) -> Result<Self, String> {
        // It follows no redirects, which could lead to where the operator does not allow.
        let client = http::client().map_err(|error| error.to_string())?;
        Ok(Self { config, client })
    }

    /// The URL, if it is allowed.
    pub(super) fn check(&self, url: &str) -> Result<Url, String> {
        let url = parse(url).map_err(|problem| format!("url: {problem}"))?;
        match self.config.urls.iter().any(|allowed| allowed.allows(&url)) {
            true => Ok(url),
            false => Err("url: this gateway does not call it (TOOL_WEBHOOK_URLS)".into()),
        }
    }

    pub(super) async fn call(&self, url: Url, invocation: &Invocation) -> Result<ToolOutput, String> {
        let Invocation { session, user, turn, call_id, name, arguments } = invocation;
        let body = json!({
            "type": "tool_call", "session_id": session, "user_id": user, "turn_id": turn,
            "call_id": call_id, "name": name, "arguments": arguments,
        });
        let body = body.to_string();
        let (id, timestamp) = (format!("{session}.{call_id}"), clock::unix_ms() / 1000);
        let signature = self.config.secret.sign(&id, timestamp, body.as_bytes());
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        let response = request.send().await.map_err(|error| http::connection(&error).to_string())?;
        let response = http::accepted(response, None).await.map_err(|error| error.to_string())?;
        let of_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if of_type.is_some_and(|of_type| of_type.starts_with("image/")) {
            let data = http::read(response, MAX_IMAGE_BYTES).await.map_err(|error| error.to_string())?;
            return image(data);
        }
        let text = http::read(response, MAX_OUTPUT_BYTES).await.map_err(|error| error.to_string())?;
        let text = String::from_utf8(text.into()).map_err(|_| "the result is neither text nor an image")?;
        ToolOutput::new(text, None)
    }
}

fn image(data: Bytes) -> Result<ToolOutput, String> {
    let image = Image::new(data).map_err(|error| error.to_string())?;
    ToolOutput::new(String::new(), Some(image))
}

#[cfg(test)]
mod tests;
