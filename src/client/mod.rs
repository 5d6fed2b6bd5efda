//! The other side: what a pair of glasses does. `june talk` and the tests are made of it.
//!
//! [`Gateway`] asks for a session over REST. A [`Device`] holds it, over as many connections as it takes:
//! it does the whole of `edge.v1`, and is what a program for glasses begins with.
//!
//! ```text
//!   Device ── link: when to connect, resume, ping     ┐
//!        ├─── voice: sound up, kept for a cut         ├ pure
//!        ├─── player: sound down                      ┘
//!        ├─── Channel: one connection
//!        └─── room, microphone: the LiveKit room
//! ```

pub mod channel;
pub mod device;
pub mod microphone;
pub mod player;
pub mod reconnect_policy;
pub mod resend_buffer;
pub mod room;

use std::time::Duration;

use serde::Deserialize;

use crate::{
    ids::{RoomName, SessionId, UserId},
    secret::Secret,
};

pub use channel::{Channel, Event};
pub use device::{Device, DeviceEvent};

/// Why something did not work, from a client's point of view.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The gateway could not be reached.
    #[error("the gateway cannot be reached: {0}")]
    Unreachable(String),
    /// The gateway refused.
    #[error("the gateway refused: {code}: {message}")]
    Refused {
        /// Its code.
        code: String,
        /// Its sentence.
        message: String,
        /// When to try again; none where that would be of no use.
        retry_after: Option<Duration>,
    },
    /// The gateway said something that makes no sense.
    #[error("not understood: {0}")]
    Protocol(String),
    /// The channel is closed.
    #[error("the channel is closed: {code} {reason}")]
    Closed {
        /// The close code (RFC 6455 §7.4).
        code: u16,
        /// The reason that came with it.
        reason: String,
    },
    /// The LiveKit room.
    #[error("LiveKit: {0}")]
    Livekit(String),
}

/// A session as `POST /api/sessions` gives it.
#[derive(Clone, Debug, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    pub session_id: SessionId,
    /// Its LiveKit room.
    pub room_name: RoomName,
    /// To join the room.
    pub access_token: Option<String>,
    /// Where the room is.
    pub livekit_url: Option<String>,
    /// Where the control channel is.
    pub control_url: String,
    /// To open it.
    pub control_token: String,
}

/// A gateway's REST API.
#[derive(Clone, Debug)]
pub struct Gateway {
    base: String,
    key: Option<Secret>,
    http: reqwest::Client,
}

impl Gateway {
    /// The gateway at this address (`http://host:port`), with an API key where it wants one.
    pub fn new(base: &str, key: Option<Secret>) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), key, http: reqwest::Client::new() }
    }

    /// Asks for a session.
    pub async fn create_session(&self, user: &UserId) -> Result<SessionInfo, ClientError> {
        let request = self
            .http
            .post(format!("{}/api/sessions", self.base))
            .json(&serde_json::json!({ "user_id": user }));
        self.call(request).await
    }

    /// What was said in a session: every line, oldest first, as JSON.
    pub async fn history(&self, session: SessionId) -> Result<Vec<serde_json::Value>, ClientError> {
        #[derive(Deserialize)]
        struct Page {
            lines: Vec<serde_json::Value>,
            next_after: Option<u64>,
        }
        let (mut lines, mut after) = (Vec::new(), Some(0));
        while let Some(from) = after {
            let url = format!("{}/api/sessions/{session}/history?after={from}", self.base);
            let page: Page = self.call(self.http.get(url)).await?;
            lines.extend(page.lines);
            after = page.next_after;
        }
        Ok(lines)
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        mut request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        #[derive(Deserialize)]
        struct Problem {
            code: String,
            detail: String,
        }
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose());
        }
        let response = request.send().await.map_err(|error| ClientError::Unreachable(root_cause(&error)))?;
        let success = response.status().is_success();
        let header = response.headers().get(reqwest::header::RETRY_AFTER);
        let retry_after = header.and_then(|after| after.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let body = response.bytes().await.map_err(|error| ClientError::Unreachable(root_cause(&error)))?;
        let unreadable = |error: serde_json::Error| ClientError::Protocol(error.to_string());
        if success {
            return serde_json::from_slice(&body).map_err(unreadable);
        }
        let Problem { code, detail } = serde_json::from_slice(&body).map_err(unreadable)?;
        Err(ClientError::Refused { code, message: detail, retry_after })
    }
}

/// The innermost cause: the outer ones only repeat that there was an error.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
