//! Error codes and close codes, as docs/PROTOCOL.md lists them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What went wrong: the `code` of `error` and `connection_error` messages and of HTTP problem documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The request carries no token.
    MissingToken,
    /// The token was not issued for this gateway, or was altered.
    InvalidToken,
    /// The token has expired.
    ExpiredToken,
    /// The token cannot be verified, because its issuer's keys cannot be fetched.
    AuthUnavailable,
    /// The token is valid but does not allow this.
    Forbidden,
    /// A field or parameter is missing or invalid.
    InvalidRequest,
    /// The session does not exist or has ended.
    SessionNotFound,
    /// The page or route does not exist.
    NotFound,
    /// The route does not support the method.
    MethodNotAllowed,
    /// The body or frame is larger than the limit.
    TooLarge,
    /// The content type of the body is not supported.
    UnsupportedMediaType,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The upgrade asks for another version of WebSocket than 13.
    UpgradeRequired,
    /// The message could not be parsed.
    MalformedMessage,
    /// The message is valid, but this gateway or this profile does not support it.
    Unsupported,
    /// The session's state does not allow this.
    SessionError,
    /// A MentraOS phone called without a session.
    NoActiveSession,
    /// Too many requests or messages.
    RateLimited,
    /// LiveKit cannot be reached or is not configured.
    MediaUnavailable,
    /// LiveKit has no egress service to record with.
    RecordingUnavailable,
    /// STT, LLM or TTS is off or failed.
    AiUnavailable,
    /// The gateway is at its limit or shutting down. Retry later, or on another machine.
    Overloaded,
    /// An internal error of the gateway.
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
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::TooLarge => "TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::UpgradeRequired => "UPGRADE_REQUIRED",
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

    /// Whether the same request may succeed later.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::RequestTimeout
                | Self::MediaUnavailable
                | Self::RecordingUnavailable
                | Self::AiUnavailable
                | Self::NoActiveSession
                | Self::AuthUnavailable
                | Self::Overloaded
                | Self::InternalError
        )
    }

    /// The close code of a control channel that cannot be attached because of this error.
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
            | Self::RequestTimeout
            | Self::UpgradeRequired
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

/// Why the gateway closes a control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Close {
    /// The session ended.
    Normal,
    /// The client was silent for too long, or the gateway shuts down.
    GoingAway,
    /// The client sent frames that WebSocket does not allow.
    Protocol,
    /// The client sent text that is not UTF-8.
    InvalidText,
    /// The client violated the rules of its channel.
    Policy,
    /// A frame exceeded the limit.
    TooBig,
    /// An internal error of the gateway.
    Internal,
    /// The gateway restarts.
    Restart,
    /// The gateway is at its limit, or two devices compete for one session.
    Overloaded,
    /// A newer connection took the session over.
    Superseded,
    /// The token expired or was revoked.
    Unauthorized,
    /// The client exceeded a rate limit.
    RateLimited,
    /// The client does not read what it is sent.
    SlowClient,
}

impl Close {
    /// The close code on the wire (RFC 6455 §7.4; 4000–4999 are defined by docs/PROTOCOL.md).
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::InvalidText => 1007,
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
