//! A client that sends requests byte by byte.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::support::{TestGateway, soon};

pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub struct RawClient {
    stream: TcpStream,
    read: Vec<u8>,
}

impl RawClient {
    pub async fn connect(gateway: &TestGateway) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Few bytes are on their way while it does not read.
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(gateway.address()).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Connects, and sends this.
    pub async fn sends(gateway: &TestGateway, bytes: impl AsRef<[u8]>) -> Self {
        let mut client = Self::connect(gateway).await;
        client.send(bytes).await;
        client
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends this again and again, and reads nothing, until the connection is over.
    pub async fn send_until_it_ends(mut self, bytes: &[u8]) {
        soon(async { while self.stream.write_all(bytes).await.is_ok() {} }).await;
    }

    /// Reads until the text is there.
    pub async fn read_until(&mut self, text: &str) -> String {
        soon(async {
            loop {
                let read = String::from_utf8_lossy(&self.read).into_owned();
                if read.contains(text) {
                    return read;
                }
                assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "it ended: {read}");
            }
        })
        .await
    }

    /// Reads until the gateway ends the connection; it may do so by a reset. Gives what came.
    pub async fn read_to_end(&mut self) -> String {
        soon(async { while !matches!(self.stream.read_buf(&mut self.read).await, Ok(0) | Err(_)) {} }).await;
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// The code of the close frame that the connection ended with.
    pub async fn close_code(mut self) -> Option<u16> {
        self.read_to_end().await;
        let at = self.read.windows(2).rposition(|bytes| bytes[0] == 0x88 && bytes[1] >= 2)?;
        let code = self.read.get(at + 2..at + 4)?;
        Some(u16::from_be_bytes([code[0], code[1]]))
    }
}

/// A request without a body.
pub fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

pub fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")
}
