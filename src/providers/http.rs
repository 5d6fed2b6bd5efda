//! What providers behind HTTP have in common: the client, and what a refusal says.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect,
};
use serde_json::Value;

use super::ProviderError;
use crate::secret::Secret;

/// How long connecting may take: TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a refusal is read, and how much of its reason is passed on, in bytes.
const MAX_REFUSAL: usize = 16 * 1024;
const MAX_REASON: usize = 200;

/// How much of a content type is passed on, in characters.
const MAX_TYPE: usize = 50;

/// One for all calls of a provider: it keeps connections open. Redirects are not followed, since they would take the key
/// elsewhere.
pub(crate) fn client() -> Result<Client, ProviderError> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("june-edge/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ProviderError::Unavailable(format!("no HTTP client: {error}")))
}

/// The response if it is a success, else the refusal with the server's own reason. `key` is left out of that.
pub(crate) async fn accepted(response: Response, key: Option<&Secret>) -> Result<Response, ProviderError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
    let body = read(response, MAX_REFUSAL).await.unwrap_or_default();
    Err(refusal(status, retry_after, &body, key))
}

/// What a success is whose body is of another type than the request asked for, such as an error in JSON.
pub(super) async fn unexpected(response: Response, key: Option<&Secret>) -> ProviderError {
    let of_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let of_type = of_type.unwrap_or("no content type").chars().take(MAX_TYPE).collect::<String>();
    let body = read(response, MAX_REFUSAL).await.unwrap_or_default();
    ProviderError::Garbled(match reason(&body, key) {
        Some(reason) => format!("{of_type}: {reason}"),
        None => of_type,
    })
}

/// A body of at most so many bytes.
pub(crate) async fn read(response: Response, max: usize) -> Result<Bytes, ProviderError> {
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| connection(&error))?;
        if body.len() + piece.len() > max {
            return Err(ProviderError::Garbled(format!("the answer has more than {max} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.into())
}

/// What a provider's status means. Also for the answer to an upgrade.
pub(super) fn refusal(
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
    key: Option<&Secret>,
) -> ProviderError {
    let code = status.as_u16();
    let reason = match reason(body, key) {
        Some(reason) => format!("HTTP {code}: {reason}"),
        None => format!("HTTP {code}"),
    };
    match code {
        408 | 425 | 500.. => ProviderError::Connection(reason),
        429 => ProviderError::RateLimited { reason, retry_after },
        _ => ProviderError::Refused(reason),
    }
}

/// Whether a reason of [`ProviderError::Refused`] is about the key or the account: every request is refused then.
pub(super) fn is_key_refused(reason: &str) -> bool {
    ["HTTP 401", "HTTP 402", "HTTP 403"].iter().any(|status| reason.starts_with(status))
}

/// Leaves the URL out: it may have a key.
pub(crate) fn connection(error: &reqwest::Error) -> ProviderError {
    if error.is_timeout() {
        return ProviderError::TimedOut;
    }
    let what = match () {
        () if error.is_connect() => "cannot be reached",
        () if error.is_body() || error.is_decode() => "the connection ended early",
        () => "the request failed",
    };
    ProviderError::Connection(what.into())
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); its other form, a date, is not used by providers.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs_f64(f64::clamp(seconds, 0.0, 86_400.0)))
}

/// The reason in a refusal: the forms of OpenAI, Google, Deepgram, ElevenLabs and FastAPI, or a short text.
pub(super) fn reason(body: &[u8], key: Option<&Secret>) -> Option<String> {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => message(&json)?,
        Err(_) => {
            std::str::from_utf8(body).ok().filter(|text| !text.trim_start().starts_with('<'))?.to_owned()
        }
    };
    let text = key.map_or_else(|| text.clone(), |key| text.replace(key.expose(), "…"));
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = line.floor_char_boundary(MAX_REASON);
    (!line.is_empty()).then(|| line[..end].to_owned())
}

fn message(json: &Value) -> Option<String> {
    const NAMES: [&str; 6] = ["error", "message", "detail", "err_msg", "reason", "title"];
    match json {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => NAMES.iter().find_map(|name| message(fields.get(*name)?)),
        Value::Array(items) => message(items.first()?.get("msg").unwrap_or(items.first()?)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> ProviderError {
        let key = Secret::new("sk-very-secret");
        refusal(StatusCode::from_u16(status).unwrap(), None, body.as_bytes(), Some(&key))
    }

    #[test]
    fn the_servers_reason_is_kept_and_the_key_is_not() {
        let cases = [
            (r#"{"error":{"message":"no such model","type":"x"}}"#, "HTTP 400: no such model"),
            (r#"{"err_code":"X","err_msg":"bad encoding"}"#, "HTTP 400: bad encoding"),
            (r#"{"detail":{"status":"x","message":"no voice"}}"#, "HTTP 400: no voice"),
            (r#"{"detail":[{"loc":["a"],"msg":"field required"}]}"#, "HTTP 400: field required"),
            (r#"[{"error":{"message":"API key not valid"}}]"#, "HTTP 400: API key not valid"),
            ("wrong  key:\nsk-very-secret", "HTTP 400: wrong key: …"),
            ("<html>nginx</html>", "HTTP 400"),
            ("", "HTTP 400"),
        ];
        for (body, reason) in cases {
            assert_eq!(refused(400, body), ProviderError::Refused(reason.into()), "{body}");
        }
    }

    #[test]
    fn what_may_work_later_is_told_from_what_will_not() {
        for (status, retryable) in [
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (302, false),
            (408, true),
            (429, true),
            (500, true),
            (503, true),
        ] {
            assert_eq!(refused(status, "").is_retryable(), retryable, "{status}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let ProviderError::Refused(reason) = refused(400, &"ü".repeat(1000)) else { panic!() };
        assert!(reason.len() <= MAX_REASON + "HTTP 400: ".len());
    }
}
