//! The control channel, from the client's side.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream::SplitSink};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header::AUTHORIZATION, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::CloseFrame,
    },
};

use super::{ClientError, root_cause};
use crate::protocol::{
    EDGE_V1, FromClient, ToClient,
    audio::{Codec, Down, Up},
    from_client::ConnectionInit,
    to_client::ConnectionAck,
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What comes from the gateway.
#[derive(Debug)]
pub enum Event {
    /// A message, and its number where it has one.
    Message(Option<u64>, ToClient),
    /// A frame of the spoken answer.
    Sound(Down),
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
    reader: futures::stream::SplitStream<Socket>,
    writer: Writer,
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
                Event::Message(_, ToClient::ConnectionError { code, message, .. }) => {
                    return Err(ClientError::Refused { code: code.to_string(), message });
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
        let (sink, reader) = socket.split();
        Ok(Self { reader, writer: Writer { sink, audio_seq: 0 }, last_seq: 0 })
    }

    /// The next event. After [`Event::Closed`] there is nothing more.
    pub async fn next(&mut self) -> Event {
        loop {
            let frame = match self.reader.next().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Event::Closed { code: 1006, reason: root_cause(&error) },
                None => return Event::Closed { code: 1006, reason: "the connection ended".into() },
            };
            match frame {
                Message::Text(text) => match decode(text.as_str()) {
                    Ok((seq, message)) => {
                        self.last_seq = self.last_seq.max(seq.unwrap_or_default());
                        return Event::Message(seq, message);
                    }
                    Err(error) => tracing::debug!(%error, "a message this client does not know"),
                },
                Message::Binary(frame) => match Down::decode(frame) {
                    Ok(sound) => return Event::Sound(sound),
                    Err(error) => tracing::debug!(%error, "a frame this client does not know"),
                },
                Message::Ping(_) => {
                    // tungstenite has queued the pong; it leaves with the next flush.
                    let _ = self.writer.sink.flush().await;
                }
                Message::Pong(_) | Message::Frame(_) => {}
                Message::Close(close) => {
                    let (code, reason) = close
                        .map_or((1005, String::new()), |CloseFrame { code, reason }| {
                            (code.into(), reason.to_string())
                        });
                    return Event::Closed { code, reason };
                }
            }
        }
    }

    /// The highest number that arrived: what to resume from.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
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

impl Writer {
    /// Says something.
    pub async fn say(&mut self, message: &FromClient) -> Result<(), ClientError> {
        self.send(Message::text(message.encode())).await
    }

    /// Sends 16 kHz mono samples of the microphone.
    pub async fn sound(&mut self, samples: &[i16], capture_ms: u64) -> Result<(), ClientError> {
        self.audio_seq += 1;
        let frame = Up {
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
        self.sink
            .send(message)
            .await
            .map_err(|error| ClientError::Closed { code: 1006, reason: root_cause(&error) })
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

/// Why the upgrade did not happen, in the gateway's words where it has some.
#[expect(clippy::wildcard_enum_match_arm, reason = "one way to fail has words of the gateway's in it")]
fn refusal(error: Error) -> ClientError {
    match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            match serde_json::from_slice::<ToClient>(body) {
                Ok(ToClient::ConnectionError { code, message, .. }) => {
                    ClientError::Refused { code: code.to_string(), message }
                }
                _ => ClientError::Refused {
                    code: response.status().as_u16().to_string(),
                    message: String::from_utf8_lossy(body).into_owned(),
                },
            }
        }
        other => ClientError::Unreachable(root_cause(&other)),
    }
}
