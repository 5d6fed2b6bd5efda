//! One connection of the control channel.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use june_protocol::{
    Code, EDGE_V1, FromClient, ToClient,
    audio::{Codec, DownlinkFrame, UplinkFrame},
    from_client::ConnectionInit,
    to_client::ConnectionAck,
};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{
            HeaderValue,
            header::{AUTHORIZATION, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL},
        },
        protocol::CloseFrame,
    },
};

use crate::{ClientError, root_cause};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What arrives from the gateway.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is in memory at a time; a box would be in the way of patterns"
)]
pub enum Event {
    /// A message, and its `seq` if it has one.
    Message(Option<u64>, ToClient),
    /// A frame of the spoken response.
    Audio(DownlinkFrame),
    /// The channel closed.
    Closed {
        /// The close code (RFC 6455 §7.4); 1006 if the connection broke.
        code: u16,
        /// The reason of the close frame.
        reason: String,
    },
}

/// An open control channel. [`next`](Channel::next) reads from it, and answers pings.
pub struct Channel {
    reader: Reader,
    writer: Writer,
}

/// The reading half.
pub struct Reader {
    stream: SplitStream<Socket>,
    /// The highest `seq` received.
    last_seq: u64,
}

/// The writing half.
pub struct Writer {
    sink: SplitSink<Socket, Message>,
    audio_seq: u32,
}

impl Channel {
    /// Opens a channel and attaches to the session of the token. Returns the gateway's acknowledgement.
    ///
    /// # Errors
    /// [`ClientError::Refused`] by the gateway, [`ClientError::Unreachable`] without a response,
    /// [`ClientError::Closed`] if the channel closed before the acknowledgement.
    pub async fn open(
        url: &str,
        token: &str,
        init: ConnectionInit,
    ) -> Result<(Self, ConnectionAck), ClientError> {
        let mut channel = Self::open_unattached(url, token).await?;
        let init = ConnectionInit { protocol: Some(EDGE_V1.into()), ..init };
        channel.send(&FromClient::ConnectionInit(Box::new(init))).await?;
        loop {
            match channel.next().await {
                Event::Message(_, ToClient::ConnectionAck(ack)) => return Ok((channel, *ack)),
                Event::Message(_, refusal @ ToClient::ConnectionError { .. }) => {
                    return Err(refused(refusal, None));
                }
                Event::Message(..) | Event::Audio(_) => {}
                Event::Closed { code, reason } => return Err(ClientError::Closed { code, reason }),
            }
        }
    }

    /// Opens a channel without sending `connection_init`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_unattached(url: &str, token: &str) -> Result<Self, ClientError> {
        let mut request =
            url.into_client_request().map_err(|error| ClientError::Protocol(error.to_string()))?;
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(EDGE_V1));
        // Boxed: the state of a TLS handshake is large.
        let (socket, _) = Box::pin(connect_async(request)).await.map_err(refusal)?;
        let (sink, stream) = socket.split();
        Ok(Self { reader: Reader { stream, last_seq: 0 }, writer: Writer { sink, audio_seq: 0 } })
    }

    /// Returns the next event. No event follows [`Event::Closed`].
    pub async fn next(&mut self) -> Event {
        loop {
            match self.reader.next().await {
                Some(event) => return event,
                // tungstenite queued a pong, which the flush sends.
                None => drop(self.writer.flush().await),
            }
        }
    }

    /// Both halves, for reading and writing at the same time.
    pub fn halves(&mut self) -> (&mut Reader, &mut Writer) {
        (&mut self.reader, &mut self.writer)
    }

    /// The highest `seq` received, to resume from.
    pub fn last_seq(&self) -> u64 {
        self.reader.last_seq
    }

    /// The writing half.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection broke.
    pub async fn send(&mut self, message: &FromClient) -> Result<(), ClientError> {
        self.writer.send(message).await
    }
}

impl Reader {
    /// Waits for the next frame; none if it carries no event, such as a ping. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        let frame = match self.stream.next().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Some(Event::Closed { code: 1006, reason: root_cause(&error) }),
            None => return Some(Event::Closed { code: 1006, reason: "the connection ended".into() }),
        };
        match frame {
            Message::Text(text) => match decode(text.as_str()) {
                Ok((seq, message)) => {
                    self.last_seq = self.last_seq.max(seq.unwrap_or_default());
                    Some(Event::Message(seq, message))
                }
                Err(error) => {
                    tracing::debug!(%error, "unknown message");
                    None
                }
            },
            Message::Binary(frame) => match DownlinkFrame::decode(frame) {
                Ok(frame) => Some(Event::Audio(frame)),
                Err(error) => {
                    tracing::debug!(%error, "invalid audio frame");
                    None
                }
            },
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
            Message::Close(close) => {
                let (code, reason) = close.map_or((1005, String::new()), |CloseFrame { code, reason }| {
                    (code.into(), reason.to_string())
                });
                Some(Event::Closed { code, reason })
            }
        }
    }
}

impl Writer {
    /// Waits until the connection accepts another message. Cancel-safe.
    pub(crate) async fn ready(&mut self) -> Result<(), ClientError> {
        poll_fn(|cx| self.sink.poll_ready_unpin(cx)).await.map_err(|error| broken(&error))
    }

    /// Queues a message on a connection that is [`ready`](Self::ready).
    pub(crate) fn queue(&mut self, message: Message) -> Result<(), ClientError> {
        self.sink.start_send_unpin(message).map_err(|error| broken(&error))
    }

    /// Waits until all messages are written to the socket. Cancel-safe.
    pub(crate) async fn flush(&mut self) -> Result<(), ClientError> {
        poll_fn(|cx| self.sink.poll_flush_unpin(cx)).await.map_err(|error| broken(&error))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the connection broke.
    pub async fn send(&mut self, message: &FromClient) -> Result<(), ClientError> {
        self.send_frame(Message::text(message.encode())).await
    }

    /// Sends 16 kHz mono samples of the microphone, captured at `capture_ms` of the client's clock.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_audio(&mut self, samples: &[i16], capture_ms: u64) -> Result<(), ClientError> {
        self.audio_seq += 1;
        let frame = UplinkFrame {
            codec: Codec::Pcm16le,
            pre_roll: false,
            backfill: false,
            end: false,
            seq: self.audio_seq,
            capture_ms,
            payload: samples.iter().flat_map(|sample| sample.to_le_bytes()).collect(),
        };
        self.send_frame(Message::Binary(frame.encode())).await
    }

    /// Sends a text or binary frame as it is, for tests.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_raw(&mut self, frame: Result<String, Bytes>) -> Result<(), ClientError> {
        self.send_frame(match frame {
            Ok(text) => Message::text(text),
            Err(bytes) => Message::Binary(bytes),
        })
        .await
    }

    /// Closes the channel. The session waits for the client to reconnect.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn close(&mut self) -> Result<(), ClientError> {
        self.send_frame(Message::Close(None)).await
    }

    async fn send_frame(&mut self, message: Message) -> Result<(), ClientError> {
        self.sink.send(message).await.map_err(|error| broken(&error))
    }
}

/// Decodes a message and its `seq`.
fn decode(text: &str) -> Result<(Option<u64>, ToClient), serde_json::Error> {
    #[derive(Deserialize)]
    struct Numbered {
        seq: Option<u64>,
    }
    let Numbered { seq } = serde_json::from_str(text)?;
    Ok((seq, serde_json::from_str(text)?))
}

/// The error of a connection that broke.
fn broken(error: &Error) -> ClientError {
    ClientError::Closed { code: 1006, reason: root_cause(error) }
}

/// The error of a failed upgrade; the gateway's own error if it sent one.
#[expect(clippy::wildcard_enum_match_arm, reason = "only an HTTP response carries an error of the gateway")]
fn refusal(error: Error) -> ClientError {
    match error {
        Error::Http(response) => {
            let header = response.headers().get(RETRY_AFTER);
            let after = header.and_then(|after| after.to_str().ok()?.parse().ok()).map(Duration::from_secs);
            let body = response.body().as_deref().unwrap_or_default();
            match serde_json::from_slice::<ToClient>(body) {
                Ok(message @ ToClient::ConnectionError { .. }) => refused(message, after),
                _ => ClientError::Refused {
                    code: response.status().as_u16().to_string(),
                    message: String::from_utf8_lossy(body).into_owned(),
                    retry_after: after.or(response.status().is_server_error().then_some(RETRY_DELAY)),
                },
            }
        }
        other => ClientError::Unreachable(root_cause(&other)),
    }
}

/// How long to wait if the gateway does not say.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The error of a `connection_error`.
#[expect(clippy::wildcard_enum_match_arm, reason = "called with a `connection_error` only")]
fn refused(message: ToClient, after: Option<Duration>) -> ClientError {
    match message {
        ToClient::ConnectionError { code, message, retryable, retry_after_ms, .. } => ClientError::Refused {
            code: code.to_string(),
            message,
            retry_after: (retryable || code == Code::SessionError)
                .then(|| retry_after_ms.map(Duration::from_millis).or(after).unwrap_or(RETRY_DELAY)),
        },
        other => ClientError::Protocol(format!("{other:?}")),
    }
}
