//! A WebSocket client that sends whatever bytes it is told to.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A gateway that sends nothing for this long fails the case.
const TIMEOUT: Duration = Duration::from_secs(10);

const HANDSHAKE: &str = "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// RFC 6455 §1.3 has it for this key.
const ACCEPT: &str = "s3pplmbitxaq9kygzzhzrbk+xoo=";

pub(super) struct Peer {
    stream: TcpStream,
    /// Received, and not yet given.
    unread: Vec<u8>,
}

/// What the gateway sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Text(String),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// A frame of another kind, by its first byte.
    Other(u8),
    /// The end of the TCP connection.
    End,
}

impl Peer {
    pub(super) async fn connect(gateway: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(gateway).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut peer = Self { stream, unread: Vec::new() };
        peer.send(HANDSHAKE.as_bytes(), None).await;
        loop {
            let text = String::from_utf8_lossy(&peer.unread).to_lowercase();
            if let Some((head, _)) = text.split_once("\r\n\r\n") {
                let length = head.len() + 4;
                if !head.starts_with("http/1.1 101 ") || !head.contains(ACCEPT) {
                    return Err(format!("no upgrade: {head}"));
                }
                peer.unread.drain(..length);
                return Ok(peer);
            }
            if !peer.read().await? {
                return Err("the connection ended within the handshake".to_owned());
            }
        }
    }

    /// Sends bytes, in pieces of `chop` if that is given. A gateway that has closed need not take them.
    pub(super) async fn send(&mut self, bytes: &[u8], chop: Option<usize>) {
        for piece in bytes.chunks(chop.unwrap_or(bytes.len()).max(1)) {
            if self.stream.write_all(piece).await.is_err() {
                return;
            }
        }
    }

    /// The next frame, or the end of the connection.
    pub(super) async fn receive(&mut self) -> Result<Incoming, String> {
        loop {
            if let Some(incoming) = self.next_frame() {
                return Ok(incoming);
            }
            if !self.read().await? {
                return Ok(Incoming::End);
            }
        }
    }

    /// Reads more. False at the end.
    async fn read(&mut self) -> Result<bool, String> {
        match timeout(TIMEOUT, self.stream.read_buf(&mut self.unread)).await {
            Ok(Ok(length)) => Ok(length > 0),
            Ok(Err(error)) => Err(format!("the connection broke: {error}")),
            Err(_) => Err("the gateway sends nothing".to_owned()),
        }
    }

    /// Takes a complete frame out of what was read.
    fn next_frame(&mut self) -> Option<Incoming> {
        let (first, second) = (*self.unread.first()?, *self.unread.get(1)?);
        let (length, payload_at) = match second {
            126 => (usize::from(u16::from_be_bytes([*self.unread.get(2)?, *self.unread.get(3)?])), 4),
            short => (usize::from(short), 2),
        };
        let payload = self.unread.get(payload_at..payload_at + length)?.to_vec();
        self.unread.drain(..payload_at + length);
        Some(match first {
            0x81 => Incoming::Text(String::from_utf8_lossy(&payload).into_owned()),
            0x88 => Incoming::Close(payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]))),
            0x8A => Incoming::Pong(payload),
            other => Incoming::Other(other),
        })
    }
}
