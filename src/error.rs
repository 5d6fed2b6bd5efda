//! The failures that clients see: error codes and close codes. docs/PROTOCOL.md lists every one.
//!
//! An HTTP response and a `connection_error` are made from an [`ApiError`](crate::http::error::ApiError).

use std::fmt;

use actix_web::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// For the modules that still return it; it belongs to HTTP.
pub use crate::http::error::ApiError;

/// An error code of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The request has no token.
    MissingToken,
    /// The token has no valid signature, or lacks a claim.
    InvalidToken,
    /// The token has expired.
    ExpiredToken,
    /// The token cannot be verified: the identity provider's keys cannot be fetched.
    AuthUnavailable,
    /// The token is valid, but does not permit this.
    Forbidden,
    /// A field or parameter is missing or invalid.
    InvalidRequest,
    /// The session does not exist, or has ended.
    SessionNotFound,
    /// The route or resource does not exist.
    NotFound,
    /// The route does not support the method.
    MethodNotAllowed,
    /// The body or frame exceeds the limit.
    TooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// The message cannot be decoded.
    MalformedMessage,
    /// The message is valid, but this gateway or this profile does not support it.
    Unsupported,
    /// The session's state does not permit this.
    SessionError,
    /// The user of a MentraOS phone has no session.
    NoActiveSession,
    /// Too many requests or messages.
    RateLimited,
    /// LiveKit cannot be reached, or is not configured.
    MediaUnavailable,
    /// LiveKit has no egress service.
    RecordingUnavailable,
    /// STT, LLM or TTS is off or failed.
    AiUnavailable,
    /// The gateway is full, or shuts down: retrying may work.
    Overloaded,
    /// The gateway failed.
    InternalError,
}

impl Code {
    /// The name on the wire.
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
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
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

    /// The status of an HTTP response with this code.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MissingToken | Self::InvalidToken | Self::ExpiredToken => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::InvalidRequest | Self::MalformedMessage | Self::Unsupported => StatusCode::BAD_REQUEST,
            Self::SessionNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
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

    /// Whether the same request may succeed later.
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

    /// The `Retry-After` of a response, in seconds, unless the error has its own; none if waiting does not help.
    pub(crate) const fn default_retry_after_s(self) -> Option<u64> {
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
            | Self::MethodNotAllowed
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

    /// How a control channel is closed that cannot be attached because of this.
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
            | Self::MethodNotAllowed
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

/// Why the gateway closes a control channel (docs/PROTOCOL.md, "Close codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// The client ended the session.
    Normal,
    /// The client was silent for too long.
    GoingAway,
    /// The client violated the protocol too often.
    Policy,
    /// A frame exceeded the limit.
    TooBig,
    /// The gateway failed.
    Internal,
    /// The gateway restarts.
    Restart,
    /// The gateway is full, or several devices take one session from each other.
    Overloaded,
    /// A newer socket took the session.
    Superseded,
    /// The token has expired.
    Unauthorized,
    /// The client sends too much.
    RateLimited,
    /// The client does not read.
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
    use super::*;

    #[test]
    fn a_code_has_one_name_on_the_wire() {
        for code in [Code::MissingToken, Code::TooLarge, Code::AiUnavailable, Code::InternalError] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
