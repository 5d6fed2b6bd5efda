//! All that a client ever sees of a failure: a [`Code`], and a sentence.
//!
//! Over HTTP that is a problem document (RFC 9457), on the control channel a message of type
//! `error` or `connection_error`. What happened in detail goes to the log and nowhere else.
//! docs/PROTOCOL.md lists every code.

use std::{fmt, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use june_protocol::timestamp;
use serde::Serialize;

pub use june_protocol::{Close, Code};

use crate::{clock, protocol::ToClient};

/// The HTTP status of a response with this code.
pub(crate) const fn status(code: Code) -> StatusCode {
    match code {
        Code::MissingToken | Code::InvalidToken | Code::ExpiredToken => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::InvalidRequest | Code::MalformedMessage | Code::Unsupported => StatusCode::BAD_REQUEST,
        Code::SessionNotFound | Code::NotFound => StatusCode::NOT_FOUND,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::SessionError => StatusCode::CONFLICT,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::MediaUnavailable => StatusCode::BAD_GATEWAY,
        Code::AuthUnavailable
        | Code::RecordingUnavailable
        | Code::AiUnavailable
        | Code::Overloaded
        | Code::NoActiveSession => StatusCode::SERVICE_UNAVAILABLE,
        Code::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The default of `Retry-After` in seconds; none where waiting alone does not help.
const fn shortest_wait_s(code: Code) -> Option<u64> {
    match code {
        Code::RateLimited | Code::Overloaded | Code::MediaUnavailable | Code::AuthUnavailable => Some(1),
        Code::NoActiveSession => Some(5),
        Code::MissingToken
        | Code::InvalidToken
        | Code::ExpiredToken
        | Code::Forbidden
        | Code::InvalidRequest
        | Code::SessionNotFound
        | Code::NotFound
        | Code::TooLarge
        | Code::UnsupportedMediaType
        | Code::MalformedMessage
        | Code::Unsupported
        | Code::SessionError
        | Code::RecordingUnavailable
        | Code::AiUnavailable
        | Code::InternalError => None,
    }
}

/// A failure on its way to a client.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// For programs.
    pub code: Code,
    /// For people; never a secret, a path or another user's name.
    pub message: String,
    /// When another try makes sense, where that is known.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// A failure with its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The same, and when another try makes sense.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Nobody said who they are.
    pub fn missing_token() -> Self {
        Self::new(Code::MissingToken, "send Authorization: Bearer …, or ?token=…")
    }

    /// A field of a request that makes no sense.
    pub fn invalid(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(Code::InvalidRequest, format!("{field}: {problem}"))
    }

    /// A fault of ours: the cause is logged here, once, and the client learns only that it happened.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "request failed by a fault of ours");
        Self::new(Code::InternalError, "something went wrong on our side")
    }

    /// The session that a client asked for is not there.
    pub fn no_such_session() -> Self {
        Self::new(Code::SessionNotFound, "there is no such session, or it has ended")
    }
}

impl From<ApiError> for ToClient {
    /// A `connection_error`.
    fn from(error: ApiError) -> Self {
        Self::ConnectionError {
            code: error.code,
            message: error.message,
            timestamp: timestamp(clock::unix_ms()),
            retryable: error.code.retryable(),
            retry_after_ms: error.retry_after.map(|wait| wait.as_millis() as u64),
        }
    }
}

/// The body of an HTTP answer that reports a failure (RFC 9457 §3.1), with our code as an extension member.
#[derive(Debug, Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    code: Code,
    detail: &'a str,
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        status(self.code)
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        response.content_type("application/problem+json");
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header(("WWW-Authenticate", "Bearer"));
        }
        if let Some(shortest) = shortest_wait_s(self.code) {
            let wait =
                self.retry_after.map_or(shortest, |wait| wait.as_millis().div_ceil(1000).max(1) as u64);
            response.insert_header(("Retry-After", wait.to_string()));
        }
        response.body(
            serde_json::to_string(&Problem {
                kind: "about:blank",
                title: status.canonical_reason().unwrap_or_default(),
                status: status.as_u16(),
                code: self.code,
                detail: &self.message,
            })
            .expect("a problem document has only strings and numbers"),
        )
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn a_failure_leaves_as_a_problem_document() {
        let response = ApiError::invalid("user_id", "must not be empty").error_response();

        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        let body = to_bytes(response.into_body()).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["code"], "INVALID_REQUEST");
        assert_eq!(body["detail"], "user_id: must not be empty");
        assert_eq!(body["status"], 400);
    }
}
