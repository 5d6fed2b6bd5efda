//! What a client sees of a failure over HTTP: a problem document (RFC 9457) with a [`Code`].
//!
//! Other modules have error enums of their own, with the cases that their callers act on; they become an
//! [`ApiError`] here, by `From`.

use std::{fmt, io, time::Duration};

use actix_http::ws::HandshakeError;
use actix_web::{
    HttpResponse, ResponseError,
    error::{JsonPayloadError, PathError, PayloadError, QueryPayloadError},
    http::{StatusCode, header},
};
use serde::Serialize;

use crate::{
    auth::{AuthError, LivekitTokenError},
    clock,
    error::Code,
    limits::Refusal,
    livekit::api::LivekitError,
    protocol::ToClient,
};

/// A failure as an HTTP response reports it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// For programs.
    pub code: Code,
    /// For people; never a secret, a path or another user's name.
    pub message: String,
    /// When to retry, if that is known.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The same, with the time after which to retry.
    #[must_use]
    pub(crate) fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    pub(crate) fn missing_token() -> Self {
        AuthError::MissingToken.into()
    }

    /// A field or parameter of a request is invalid.
    pub(crate) fn invalid(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(Code::InvalidRequest, format!("{field}: {problem}"))
    }

    /// The gateway failed. The cause is logged here, once; the client learns only that it happened.
    pub(crate) fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(Code::InternalError, "the gateway failed to handle the request")
    }

    pub(crate) fn no_such_session() -> Self {
        Self::new(Code::SessionNotFound, "the session does not exist, or has ended")
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Code::NotFound, "there is no such resource")
    }

    pub(crate) fn too_large() -> Self {
        Self::new(Code::TooLarge, "body: too large")
    }

    /// The gateway took too long.
    pub(crate) fn late() -> Self {
        Self::new(Code::Overloaded, "the gateway did not manage this in time; try again")
    }

    pub(crate) fn draining() -> Self {
        Self::new(Code::Overloaded, "the gateway is shutting down; try again")
    }

    /// The problem document, for a response that has begun.
    pub(crate) fn problem(&self) -> Problem<'_> {
        let status = status(self.code);
        Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code: self.code,
            detail: &self.message,
        }
    }

    pub(crate) fn no_livekit() -> Self {
        Self::new(Code::MediaUnavailable, "this gateway has no LiveKit and no rooms")
    }
}

impl From<ApiError> for ToClient {
    /// A `connection_error`.
    fn from(error: ApiError) -> Self {
        Self::ConnectionError {
            code: error.code,
            message: error.message,
            timestamp: clock::timestamp(clock::unix_ms()),
            retryable: error.code.retryable(),
            retry_after_ms: error.retry_after.map(|wait| wait.as_millis() as u64),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string()).after(refusal.retry_after)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        Self { code: error.code(), message: error.to_string(), retry_after: error.retry_after() }
    }
}

impl From<LivekitTokenError> for ApiError {
    fn from(error: LivekitTokenError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<LivekitError> for ApiError {
    fn from(error: LivekitError) -> Self {
        let code = match error {
            LivekitError::Unreachable => Code::MediaUnavailable,
            LivekitError::NotFound(_) => Code::NotFound,
            LivekitError::InvalidArgument(_) => Code::InvalidRequest,
            LivekitError::FailedPrecondition(_) => Code::SessionError,
            LivekitError::NoEgress(_) => Code::RecordingUnavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<HandshakeError> for ApiError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::UnsupportedVersion => {
                Self::new(Code::UpgradeRequired, "the gateway speaks version 13 of WebSocket")
            }
            HandshakeError::GetMethodRequired
            | HandshakeError::NoWebsocketUpgrade
            | HandshakeError::NoConnectionUpgrade
            | HandshakeError::NoVersionHeader
            | HandshakeError::BadWebsocketKey => Self::invalid("upgrade", error),
        }
    }
}

impl From<&PayloadError> for ApiError {
    fn from(error: &PayloadError) -> Self {
        match error {
            PayloadError::Overflow => Self::too_large(),
            PayloadError::Io(cause) if cause.kind() == io::ErrorKind::TimedOut => {
                Self::new(Code::RequestTimeout, "the body did not arrive in time")
            }
            PayloadError::Incomplete(_)
            | PayloadError::EncodingCorrupted
            | PayloadError::UnknownLength
            | PayloadError::Io(_)
            | _ => Self::invalid("body", error),
        }
    }
}

/// The status of a response with this code.
pub(crate) const fn status(code: Code) -> StatusCode {
    match code {
        Code::MissingToken | Code::InvalidToken | Code::ExpiredToken => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::InvalidRequest | Code::MalformedMessage | Code::Unsupported => StatusCode::BAD_REQUEST,
        Code::SessionNotFound | Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
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

/// The `Retry-After` of a response, in seconds, unless the error has its own; none if waiting does not help.
const fn default_retry_after_s(code: Code) -> Option<u64> {
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
        | Code::MethodNotAllowed
        | Code::TooLarge
        | Code::UnsupportedMediaType
        | Code::RequestTimeout
        | Code::UpgradeRequired
        | Code::MalformedMessage
        | Code::Unsupported
        | Code::SessionError
        | Code::RecordingUnavailable
        | Code::AiUnavailable
        | Code::InternalError => None,
    }
}

/// A body that cannot be read as JSON.
pub(super) fn json(error: &JsonPayloadError) -> ApiError {
    if let JsonPayloadError::Payload(error) = error {
        return error.into();
    }
    let code = match error {
        JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => Code::TooLarge,
        JsonPayloadError::ContentType => Code::UnsupportedMediaType,
        JsonPayloadError::Deserialize(_)
        | JsonPayloadError::Serialize(_)
        | JsonPayloadError::Payload(_)
        | _ => Code::InvalidRequest,
    };
    ApiError::new(code, format!("body: {error}"))
}

pub(super) fn path(error: &PathError) -> ApiError {
    ApiError::invalid("path", error)
}

pub(super) fn query(error: &QueryPayloadError) -> ApiError {
    ApiError::invalid("query", error)
}

/// The body of a response that reports a failure (RFC 9457 §3.1), with our code as an extension member.
#[derive(Debug, Serialize)]
pub(crate) struct Problem<'a> {
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
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455 §4.2.2, RFC 9110 §15.5.22
            response.insert_header((header::UPGRADE, "websocket"));
            response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
        }
        if let Some(default) = default_retry_after_s(self.code) {
            let wait = self.retry_after.map_or(default, |wait| wait.as_millis().div_ceil(1000).max(1) as u64);
            response.insert_header((header::RETRY_AFTER, wait.to_string()));
        }
        response.body(
            serde_json::to_string(&self.problem()).expect("a problem document has only strings and numbers"),
        )
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn a_failure_is_sent_as_a_problem_document() {
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
    fn a_refused_connect_says_when_to_retry() {
        let refused = AuthError::TooManyConnects { by: "address", retry_after: Duration::from_millis(1200) };
        let response = ApiError::from(refused).error_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get("retry-after").unwrap(), "2");
    }
}
