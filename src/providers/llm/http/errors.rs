//! What `genai`'s errors mean.

use genai::webc::StreamTimeout;
use serde_json::Value;

use crate::{
    providers::{ProviderError, http},
    secret::Secret,
};

/// Errors that a provider sends in a stream, by HTTP status or by name. What is not here may work later.
const RATE_LIMITED: [&str; 5] =
    ["429", "rate_limit_error", "rate_limit_exceeded", "insufficient_quota", "RESOURCE_EXHAUSTED"];
const REFUSED: [&str; 14] = [
    "400",
    "401",
    "403",
    "404",
    "413",
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "INVALID_ARGUMENT",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "NOT_FOUND",
];

/// With the server's own reason, from which `key` is left out.
#[expect(clippy::wildcard_enum_match_arm, reason = "most of genai's many errors cannot occur in a chat")]
pub(super) fn provider_error(error: &genai::Error, key: Option<&Secret>) -> ProviderError {
    use genai::Error as E;
    match error {
        E::HttpError { status, body, headers, .. } => {
            http::refusal(*status, http::retry_after(headers), body.as_bytes(), key)
        }
        E::WebStream { error: cause, .. } => {
            if let Some(error) = cause.downcast_ref::<genai::Error>() {
                provider_error(error, key)
            } else if let Some(error) = cause.downcast_ref::<reqwest::Error>() {
                http::connection(error)
            } else if cause.is::<StreamTimeout>() {
                ProviderError::TimedOut
            } else {
                ProviderError::Garbled("no text".into())
            }
        }
        E::ChatResponse { body, .. } => error_in_stream(body, key),
        E::StreamParse { .. }
        | E::InvalidJsonResponseElement { .. }
        | E::SerdeJson(_)
        | E::JsonValueExt(_) => ProviderError::Garbled("not what its protocol says".into()),
        _ => ProviderError::Refused("the request cannot be made".into()),
    }
}

/// OpenAI's error object; Google's or Anthropic's, which has it under `error`.
fn error_in_stream(body: &Value, key: Option<&Secret>) -> ProviderError {
    let fields = body.get("error").unwrap_or(body);
    let is_one_of = |names: &[&str]| {
        ["code", "status", "type"].iter().filter_map(|name| fields.get(*name)).any(|value| {
            let text = value.to_string();
            names.contains(&value.as_str().unwrap_or(&text))
        })
    };
    let reason = http::reason(body.to_string().as_bytes(), key).unwrap_or_else(|| "without a reason".into());
    let reason = format!("error in the response: {reason}");
    if is_one_of(&RATE_LIMITED) {
        ProviderError::RateLimited { reason, retry_after: None }
    } else if is_one_of(&REFUSED) {
        ProviderError::Refused(reason)
    } else {
        ProviderError::Connection(reason)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_in_a_stream_is_told_by_its_code_or_name() {
        let limited = |reason: &str| ProviderError::RateLimited { reason: reason.into(), retry_after: None };
        for (body, expected) in [
            (
                json!({"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}),
                limited("error in the response: slow down"),
            ),
            (
                json!({"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}),
                limited("error in the response: quota"),
            ),
            (
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
                ProviderError::Connection("error in the response: Overloaded".into()),
            ),
            (
                json!({"message": "sk-very-secret is wrong", "code": 401}),
                ProviderError::Refused("error in the response: … is wrong".into()),
            ),
            (
                json!({"finishReason": null}),
                ProviderError::Connection("error in the response: without a reason".into()),
            ),
        ] {
            assert_eq!(error_in_stream(&body, Some(&Secret::new("sk-very-secret"))), expected, "{body}");
        }
    }
}
