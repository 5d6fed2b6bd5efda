//! What providers behind WebSockets have in common: connecting, and how a connection ends.

use std::time::Duration;

use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Error,
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
        Error::Http(response) => {
            let (head, body) = response.into_parts();
            http::refusal(head.status, None, &body.unwrap_or_default(), key)
        }
        Error::Capacity(_) => ProviderError::Garbled("a message is too large".into()),
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
    let reason = key.map_or_else(|| reason.to_string(), |key| reason.replace(key.expose(), "…"));
    let end = reason.floor_char_boundary(200);
    ProviderError::Connection(format!("closed with {}: {}", u16::from(code), &reason[..end]))
}
