//! All that a client ever sees of a failure: a [`Code`], and a sentence.
//!
//! Over HTTP that is a problem document (RFC 9457), on the control channel a message of type
//! `error` or `connection_error`. What happened in detail goes to the log and nowhere else.
//! docs/PROTOCOL.md lists every code.

use std::{fmt, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What went wrong, in the words of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// No token came with the request.
    MissingToken,
    /// The token is not one of ours, or was altered.
    InvalidToken,
    /// The token was good once.
    ExpiredToken,
    /// Whether the token is good cannot be said: its issuer's keys cannot be had.
    AuthUnavailable,
    /// The token is good, but not for this.
    Forbidden,
    /// A field or parameter is missing or has a value that makes no sense.
    InvalidRequest,
    /// There is no such session (any more).
    SessionNotFound,
    /// There is no such page or route.
    NotFound,
    /// The body or frame is larger than the limit.
    TooLarge,
    /// The body is not of a type that is read here.
    UnsupportedMediaType,
    /// The message could not be read.
    MalformedMessage,
    /// The message is good but this gateway, or this profile, does not do that.
    Unsupported,
    /// The session is not in a state for that.
    SessionError,
    /// A MentraOS phone calls that has no session.
    NoActiveSession,
    /// Too many requests or messages.
    RateLimited,
    /// LiveKit is out of reach, or not configured.
    MediaUnavailable,
    /// LiveKit has nobody who records.
    RecordingUnavailable,
    /// Speech recognition, thinking or speaking is off or failed.
    AiUnavailable,
    /// The gateway is full, or going down: another try, or another machine, may work.
    Overloaded,
    /// A fault of ours.
    InternalError,
}

impl Code {
    /// The code as it is written on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingToken => "MISSING_TOKEN",
            Self::InvalidToken => "INVALID_TOKEN",
            Self::ExpiredToken => "EXPIRED_TOKEN",
            Self::AuthUnavailable => "AUTH_UNAVAILABLE",
            Self::Forbidden => "FORBIDDEN",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::SessionNotFound => "SESSION_NOT_FOUND",
            Self::NotFound => "NOT_FOUND",
            Self::TooLarge => "TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::MalformedMessage => "MALFORMED_MESSAGE",
            Self::Unsupported => "UNSUPPORTED",
            Self::SessionError => "SESSION_ERROR",
            Self::NoActiveSession => "NO_ACTIVE_SESSION",
            Self::RateLimited => "RATE_LIMITED",
            Self::MediaUnavailable => "MEDIA_UNAVAILABLE",
            Self::RecordingUnavailable => "RECORDING_UNAVAILABLE",
            Self::AiUnavailable => "AI_UNAVAILABLE",
            Self::Overloaded => "OVERLOADED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// The HTTP status of an answer with this code.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MissingToken | Self::InvalidToken | Self::ExpiredToken => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::InvalidRequest | Self::MalformedMessage | Self::Unsupported => StatusCode::BAD_REQUEST,
            Self::SessionNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::SessionError => StatusCode::CONFLICT,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::MediaUnavailable => StatusCode::BAD_GATEWAY,
            Self::AuthUnavailable
            | Self::RecordingUnavailable
            | Self::AiUnavailable
            | Self::Overloaded
            | Self::NoActiveSession => StatusCode::SERVICE_UNAVAILABLE,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same request may work later.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::MediaUnavailable
                | Self::RecordingUnavailable
                | Self::AiUnavailable
                | Self::NoActiveSession
                | Self::AuthUnavailable
                | Self::Overloaded
                | Self::InternalError
        )
    }

    /// How long to wait before another try where nothing says more, in seconds; none where a wait alone does
    /// not help.
    const fn shortest_wait_s(self) -> Option<u64> {
        match self {
            Self::RateLimited | Self::Overloaded | Self::MediaUnavailable | Self::AuthUnavailable => Some(1),
            Self::NoActiveSession => Some(5),
            Self::MissingToken
            | Self::InvalidToken
            | Self::ExpiredToken
            | Self::Forbidden
            | Self::InvalidRequest
            | Self::SessionNotFound
            | Self::NotFound
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::MalformedMessage
            | Self::Unsupported
            | Self::SessionError
            | Self::RecordingUnavailable
            | Self::AiUnavailable
            | Self::InternalError => None,
        }
    }

    /// How a control channel is closed that this keeps from being attached.
    pub const fn close(self) -> Close {
        match self {
            Self::MissingToken | Self::InvalidToken | Self::ExpiredToken => Close::Unauthorized,
            Self::RateLimited => Close::RateLimited,
            Self::AuthUnavailable | Self::Overloaded => Close::Overloaded,
            Self::InternalError => Close::Internal,
            Self::Forbidden
            | Self::InvalidRequest
            | Self::SessionNotFound
            | Self::NotFound
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::MalformedMessage
            | Self::Unsupported
            | Self::SessionError
            | Self::MediaUnavailable
            | Self::RecordingUnavailable
            | Self::AiUnavailable
            | Self::NoActiveSession => Close::Policy,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
        self.code.status()
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        response.content_type("application/problem+json");
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header(("WWW-Authenticate", "Bearer"));
        }
        if let Some(shortest) = self.code.shortest_wait_s() {
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

/// Why the gateway closes a control channel (protocol.md §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// The session is over by the client's own wish.
    Normal,
    /// The client was silent for too long, or the gateway goes away.
    GoingAway,
    /// The client broke the protocol too often.
    Policy,
    /// A frame over the limit.
    TooBig,
    /// A fault of ours.
    Internal,
    /// The gateway restarts.
    Restart,
    /// The gateway is full, or two devices fight for one session.
    Overloaded,
    /// A newer socket took the session.
    Superseded,
    /// The token ended or was withdrawn.
    Unauthorized,
    /// The client floods.
    RateLimited,
    /// The client does not take what it is sent.
    SlowClient,
}

impl Close {
    /// The close code on the wire (RFC 6455 §7.4; 4000–4999 are ours).
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::Overloaded => 1013,
            Self::Superseded => 4001,
            Self::Unauthorized => 4401,
            Self::SlowClient => 4408,
            Self::RateLimited => 4429,
        }
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

    #[test]
    fn a_code_has_one_name_on_the_wire() {
        for code in [Code::MissingToken, Code::TooLarge, Code::AiUnavailable, Code::InternalError] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
