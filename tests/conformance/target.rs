//! The gateway that is looked at.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

const SECRET: &str = "conformance-secret-with-32-bytes-";

/// A gateway, and the token of a user.
pub struct Target {
    /// `ws://host:port`
    base: String,
    /// A user's token; none where each case gets a user of its own.
    token: Option<String>,
    users: AtomicUsize,
    /// How soon a `pong` must come.
    pub pong_within: Duration,
    /// Ended when this is dropped.
    own: Option<Own>,
}

/// A gateway of our own.
struct Own {
    process: Child,
    _data: tempfile::TempDir,
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Target {
    /// The one at `URL`, entered by `TOKEN`; else one of our own.
    pub async fn find() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(url) = set("URL") else { return Self::start().await };
        let token = set("TOKEN").expect("TOKEN: a user's token for the gateway at URL");
        let base = url.trim_end_matches('/').replacen("http", "ws", 1);
        let pong_within = Duration::from_millis(
            set("PONG_WITHIN_MS").map_or(1000, |ms| ms.parse().expect("PONG_WITHIN_MS: milliseconds")),
        );
        Self { base, token: Some(token), users: AtomicUsize::default(), pong_within, own: None }
    }

    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_june"));
        command.arg("serve").stdin(Stdio::null());
        command.env("PORT", port.to_string()).env("DATA_DIR", data.path());
        command.env("AUTH_JWT_SECRET", SECRET).env("LIVEKIT_URL", "off").env("LLM", "echo");
        // A case waits the grace out.
        command.env("SESSION_GRACE_MS", "4000").env("RUST_LOG", "error");
        let own = Own { process: command.spawn().unwrap(), _data: data };
        let ready = format!("http://127.0.0.1:{port}/readyz");
        while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self {
            base: format!("ws://127.0.0.1:{port}"),
            token: None,
            users: AtomicUsize::default(),
            // A machine that builds and tests other things at the same time is no measure.
            pong_within: Duration::from_secs(30),
            own: Some(own),
        }
    }

    /// What to call it.
    pub fn name(&self) -> &str {
        if self.own.is_some() { "a gateway of our own" } else { &self.base }
    }

    /// Where a path is.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The user of a case.
    pub fn token(&self) -> String {
        if let Some(token) = &self.token {
            return token.clone();
        }
        let n = self.users.fetch_add(1, Ordering::Relaxed);
        let exp = june_edge::clock::unix_s() + 3600;
        let claims = json!({"sub": n.to_string(), "email": format!("device-{n}@example.org"), "exp": exp});
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))
            .unwrap()
    }
}
