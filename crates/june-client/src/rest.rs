//! The gateway's REST API.

use std::time::Duration;

use bytes::Bytes;
use june_protocol::{
    Secret, SessionOptions,
    ids::{RoomName, SessionId, UserId},
};
use reqwest::Url;
use serde::Deserialize;

use crate::{ClientError, root_cause};

/// A session, as `POST /api/sessions` returns it.
#[derive(Clone, Debug, Deserialize)]
pub struct SessionInfo {
    /// The session's id.
    pub session_id: SessionId,
    /// The session's LiveKit room.
    pub room_name: RoomName,
    /// The LiveKit token to join the room with.
    pub access_token: Option<String>,
    /// The URL of the LiveKit server.
    pub livekit_url: Option<String>,
    /// The URL of the control channel.
    pub control_url: String,
    /// The token that opens the control channel.
    pub control_token: String,
    /// When the control token expires, in seconds since the Unix epoch.
    pub control_token_expires_at: Option<u64>,
    /// The options in force.
    #[serde(default)]
    pub options: SessionOptions,
}

/// The REST API of a gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    base: String,
    key: Option<Secret>,
    http: reqwest::Client,
}

impl Gateway {
    /// The gateway at `base` (`http://host:port`), with an API key where it requires one.
    pub fn new(base: &str, key: Option<Secret>) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), key, http: reqwest::Client::new() }
    }

    /// Creates a session for `user`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the gateway's error code, [`ClientError::Unreachable`] without a response.
    pub async fn create_session(&self, user: &UserId) -> Result<SessionInfo, ClientError> {
        self.create_session_with(user, &SessionOptions::default()).await
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`create_session`](Self::create_session).
    pub async fn create_session_with(
        &self,
        user: &UserId,
        options: &SessionOptions,
    ) -> Result<SessionInfo, ClientError> {
        let request = self
            .http
            .post(format!("{}/api/sessions", self.base))
            .json(&serde_json::json!({ "user_id": user, "options": options }));
        self.call(request).await
    }

    /// The history of a session, oldest first, as JSON (docs/REST.md).
    ///
    /// # Errors
    /// As [`create_session`](Self::create_session).
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

    /// Completes a `tool_call` with a JPEG or PNG, which may be larger than a control message; `token` is the session's
    /// control token. `output` is what the LLM reads beside the image, if it sees images, else without it.
    ///
    /// # Errors
    /// As [`create_session`](Self::create_session). The call stays open if the image is too large (`TOO_LARGE`) or is
    /// none (`UNSUPPORTED_MEDIA_TYPE`); it is over with `SESSION_ERROR`.
    pub async fn upload_tool_image(
        &self,
        session: SessionId,
        token: &str,
        call_id: &str,
        image: impl Into<Bytes>,
        output: Option<&str>,
    ) -> Result<(), ClientError> {
        let image = image.into();
        let media_type = if image.starts_with(b"\x89PNG") { "image/png" } else { "image/jpeg" };
        let url = format!("{}/api/sessions/{session}/tool-calls/{call_id}/image", self.base);
        let mut url = Url::parse(&url).map_err(|error| ClientError::Unreachable(error.to_string()))?;
        if let Some(output) = output {
            url.query_pairs_mut().append_pair("output", output);
        }
        let request = self
            .http
            .put(url)
            .header(reqwest::header::CONTENT_TYPE, media_type)
            .bearer_auth(token)
            .body(image);
        Self::send(request).await.map(drop)
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        mut request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose());
        }
        let body = Self::send(request).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// The body of a response that reports success.
    async fn send(request: reqwest::RequestBuilder) -> Result<Bytes, ClientError> {
        #[derive(Deserialize)]
        struct Problem {
            code: String,
            detail: String,
        }
        let response = request.send().await.map_err(|error| ClientError::Unreachable(root_cause(&error)))?;
        let success = response.status().is_success();
        let header = response.headers().get(reqwest::header::RETRY_AFTER);
        let retry_after = header.and_then(|after| after.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let body = response.bytes().await.map_err(|error| ClientError::Unreachable(root_cause(&error)))?;
        if success {
            return Ok(body);
        }
        let problem = serde_json::from_slice(&body);
        let Problem { code, detail } = problem.map_err(|error| ClientError::Protocol(error.to_string()))?;
        Err(ClientError::Refused { code, message: detail, retry_after })
    }
}
