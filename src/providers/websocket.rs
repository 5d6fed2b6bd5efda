//! What providers behind WebSockets have in common: connecting, and how a connection ends.

use std::time::Duration;

use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Error,
        error::ProtocolError,
        handshake::client::Request,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{ProviderError, http};
use crate::secret::Secret;

/// How long connecting may take: TCP, TLS and the upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest message of a provider, in bytes: some seconds of sound in Base64.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects; `key` is left out of the reason of a refusal.
pub(super) async fn connect(request: Request, key: Option<&Secret>) -> Result<Socket, ProviderError> {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let connecting = connect_async_with_config(request, Some(config), true);
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(failed(error, key)),
        Err(_) => Err(ProviderError::TimedOut),
    }
}

/// Leaves the URL out: it may have a key.
pub(super) fn failed(error: Error, key: Option<&Secret>) -> ProviderError {
    match error {
        Error::Http(response) if response.status().is_success() => {
            ProviderError::Garbled("it is not a WebSocket".into())
        }
        Error::Http(response) => {
            let (head, body) = response.into_parts();
            // The body is there only as far as it came together with the head. Deepgram repeats it in a header.
            let body = body.filter(|body| !body.is_empty()).unwrap_or_else(|| {
                head.headers.get("dg-error").map_or_else(Vec::new, |error| error.as_bytes().to_vec())
            });
            http::refusal(head.status, http::retry_after(&head.headers), &body, key)
        }
        Error::Capacity(_) => ProviderError::Garbled("a message is too large".into()),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete) => {
            closed(None, key)
        }
        Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt | Error::WriteBufferFull(_) => {
            ProviderError::Garbled("it breaks the WebSocket protocol".into())
        }
        Error::Io(_) | Error::Tls(_) | Error::Url(_) | Error::HttpFormat(_) => {
            ProviderError::Connection("cannot be reached".into())
        }
        Error::ConnectionClosed | Error::AlreadyClosed => closed(None, key),
    }
}

/// The provider closed the connection before it gave a result.
pub(super) fn closed(frame: Option<CloseFrame>, key: Option<&Secret>) -> ProviderError {
    let Some(CloseFrame { code, reason }) = frame else {
        return ProviderError::Connection("the connection ended early".into());
    };
    ProviderError::Connection(format!("closed with {}: {}", u16::from(code), quoted(&reason, key)))
}

/// A provider's own words for an error message: cut, and without the key.
pub(super) fn quoted(text: &str, key: Option<&Secret>) -> String {
    let mut text = key.map_or_else(|| text.to_owned(), |key| text.replace(key.expose(), "…"));
    text.truncate(text.floor_char_boundary(200));
    text
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::http::Response;

    use super::*;

    #[test]
    fn a_refused_upgrade_keeps_its_reason_whether_or_not_its_body_came() {
        let key = Secret::new("very-secret");
        let refused = |body: &[u8]| {
            let response = Response::builder().status(429).header("retry-after", "7");
            let response = response.header("dg-error", "no streams left for very-secret");
            failed(Error::Http(Box::new(response.body(Some(body.to_vec())).unwrap())), Some(&key))
        };
        let expected = |reason: &str| ProviderError::RateLimited {
            reason: format!("HTTP 429: {reason}"),
            retry_after: Some(Duration::from_secs(7)),
        };

        assert_eq!(refused(br#"{"err_msg":"too many"}"#), expected("too many"));
        assert_eq!(refused(b""), expected("no streams left for …"));
    }

    #[test]
    fn a_connection_that_ends_without_a_close_frame_is_lost_and_breaks_no_protocol() {
        let lost = ProviderError::Connection("the connection ended early".into());

        assert_eq!(failed(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake), None), lost);
        assert!(matches!(
            failed(Error::Protocol(ProtocolError::InvalidOpcode(3)), None),
            ProviderError::Garbled(_)
        ));
    }
}
