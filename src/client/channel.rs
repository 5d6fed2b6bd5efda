//! The control channel, from the client's side.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
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

use crate::{
    client::{ClientError, root_cause},
    error::Code,
    protocol::{
        EDGE_V1, FromClient, ToClient,
        edge_v1::{
            audio::{Codec, DownlinkFrame, UplinkFrame},
            from_client::ConnectionInit,
            to_client::ConnectionAck,
        },
    },
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What comes from the gateway.
#[derive(Debug)]
pub enum Event {
    /// A message, and its number where it has one.
    Message(Option<u64>, ToClient),
    /// A frame of the spoken answer.
    Sound(DownlinkFrame),
    /// The channel is over.
    Closed {
        /// The close code (RFC 6455 §7.4); 1006 where the connection broke.
        code: u16,
        /// The reason that came with it.
        reason: String,
    },
}

/// An attached control channel. Reading is by [`next`](Channel::next), which also answers pings.
pub struct Channel {
    reader: Reader,
    writer: Writer,
}

/// The reading half.
pub struct Reader {
    stream: SplitStream<Socket>,
    /// The highest number that arrived.
    last_seq: u64,
}

/// The writing half.
pub struct Writer {
    sink: SplitSink<Socket, Message>,
    audio_seq: u32,
}

impl Channel {
    /// Opens a channel and attaches to the session; gives the gateway's acknowledgement.
    pub async fn open(
        url: &str,
        token: &str,
        init: ConnectionInit,
    ) -> Result<(Self, ConnectionAck), ClientError> {
        let mut channel = Self::open_silent(url, token).await?;
        let init = ConnectionInit { protocol: Some(EDGE_V1.into()), ..init };
        channel.say(&FromClient::ConnectionInit(Box::new(init))).await?;
        loop {
            match channel.next().await {
                Event::Message(_, ToClient::ConnectionAck(ack)) => return Ok((channel, *ack)),
                Event::Message(_, refusal @ ToClient::ConnectionError { .. }) => {
                    return Err(refused(refusal, None));
                }
                Event::Message(..) | Event::Sound(_) => {}
                Event::Closed { code, reason } => return Err(ClientError::Closed { code, reason }),
            }
        }
    }

    /// Opens a channel and says nothing on it yet.
    pub async fn open_silent(url: &str, token: &str) -> Result<Self, ClientError> {
        let mut request =
            url.into_client_request().map_err(|error| ClientError::Protocol(error.to_string()))?;
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(EDGE_V1));
        // A TLS handshake's state is larger than a caller's future should be.
        let (socket, _) = Box::pin(connect_async(request)).await.map_err(refusal)?;
        let (sink, stream) = socket.split();
        Ok(Self { reader: Reader { stream, last_seq: 0 }, writer: Writer { sink, audio_seq: 0 } })
    }

    /// The next event. After [`Event::Closed`] there is nothing more.
    pub async fn next(&mut self) -> Event {
        loop {
            match self.reader.next().await {
                Some(event) => return event,
                // tungstenite has queued the pong; it leaves with the next flush.
                None => drop(self.writer.flush().await),
            }
        }
    }

    /// Both halves, for somebody who reads and writes at the same time.
    pub fn halves(&mut self) -> (&mut Reader, &mut Writer) {
        (&mut self.reader, &mut self.writer)
    }

    /// The highest number that arrived: what to resume from.
    pub fn last_seq(&self) -> u64 {
        self.reader.last_seq
    }

    /// The writing half.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Says something.
    pub async fn say(&mut self, message: &FromClient) -> Result<(), ClientError> {
        self.writer.say(message).await
    }
}

impl Reader {
    /// The next frame: an event, or none where it was only a sign of life. It can be dropped at any time.
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
                    tracing::debug!(%error, "a message this client does not know");
                    None
                }
            },
            Message::Binary(frame) => match DownlinkFrame::decode(frame) {
                Ok(sound) => Some(Event::Sound(sound)),
                Err(error) => {
                    tracing::debug!(%error, "a frame this client does not know");
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
    /// Resolves when the connection takes another message. It can be dropped at any time.
    pub async fn ready(&mut self) -> Result<(), ClientError> {
        poll_fn(|cx| self.sink.poll_ready_unpin(cx)).await.map_err(|error| broken(&error))
    }

    /// Gives a message to a connection that is [`ready`](Self::ready).
    pub fn queue(&mut self, message: Message) -> Result<(), ClientError> {
        self.sink.start_send_unpin(message).map_err(|error| broken(&error))
    }

    /// Resolves when everything was given to the system. It can be dropped at any time.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        poll_fn(|cx| self.sink.poll_flush_unpin(cx)).await.map_err(|error| broken(&error))
    }

    /// Says something.
    pub async fn say(&mut self, message: &FromClient) -> Result<(), ClientError> {
        self.send(Message::text(message.encode())).await
    }

    /// Sends 16 kHz mono samples of the microphone.
    pub async fn sound(&mut self, samples: &[i16], capture_ms: u64) -> Result<(), ClientError> {
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
        self.send(Message::Binary(frame.encode())).await
    }

    /// Sends any bytes: a test's way to misbehave.
    pub async fn raw(&mut self, frame: Result<String, Bytes>) -> Result<(), ClientError> {
        self.send(match frame {
            Ok(text) => Message::text(text),
            Err(bytes) => Message::Binary(bytes),
        })
        .await
    }

    /// Closes the channel as a client does that will come back.
    pub async fn close(&mut self) -> Result<(), ClientError> {
        self.send(Message::Close(None)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        self.sink.send(message).await.map_err(|error| broken(&error))
    }
}

/// Reads a message and its number.
fn decode(text: &str) -> Result<(Option<u64>, ToClient), serde_json::Error> {
    #[derive(Deserialize)]
    struct Numbered {
        seq: Option<u64>,
    }
    let Numbered { seq } = serde_json::from_str(text)?;
    Ok((seq, serde_json::from_str(text)?))
}

/// A connection that takes nothing any more.
fn broken(error: &Error) -> ClientError {
    ClientError::Closed { code: 1006, reason: root_cause(error) }
}

/// Why the upgrade did not happen, in the gateway's words where it has some.
#[expect(clippy::wildcard_enum_match_arm, reason = "one way to fail has words of the gateway's in it")]
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

/// How long to wait where the gateway does not say.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// A `connection_error`.
#[expect(clippy::wildcard_enum_match_arm, reason = "it is called with one")]
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
