//! A user's client: plain requests, and an attached control channel.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::sockets::{connect, frame};

/// The API key of gateways with users.
pub const BACKEND: &str = "backend-key-of-the-benchmark";

/// Signs users' tokens.
pub const USERS_SECRET: &str = "bench-users-bench-users-bench-32";

/// A user's own token.
pub fn token(user: &str) -> String {
    let exp = june_edge::clock::unix_s() + 3600;
    let claims = json!({"sub": user, "email": user, "exp": exp});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(USERS_SECRET.as_bytes()))
        .unwrap()
}

/// A request; `credential` is a whole header line, or empty.
pub fn request(method: &str, path: &str, credential: &str, body: &str) -> String {
    let credential = if credential.is_empty() { String::new() } else { format!("{credential}\r\n") };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{credential}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Sends a request, and reads the answer: its status and its JSON. None if the gateway closes or is silent.
pub async fn ask(connection: &mut TcpStream, request: &str) -> Option<(u16, Value)> {
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::with_capacity(4096);
    loop {
        let read = timeout(Duration::from_secs(20), connection.read_buf(&mut answer)).await.ok()?.ok()?;
        if read == 0 {
            return None;
        }
        let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if answer.len() >= head + 4 + length {
            let status = text.split(' ').nth(1)?.parse().ok()?;
            return Some((status, serde_json::from_slice(&answer[head + 4..]).unwrap_or_default()));
        }
    }
}

/// The object of a new session; null if it is refused.
pub async fn create_session(port: u16, user: &str, credential: &str) -> Value {
    let body = json!({"user_id": user}).to_string();
    let mut connection = connect(port).await;
    let answer = ask(&mut connection, &request("POST", "/api/sessions", credential, &body)).await;
    answer.filter(|(status, _)| *status == 201).map_or(Value::Null, |(_, session)| session)
}

/// An attached control channel.
pub struct Channel {
    pub connection: TcpStream,
    received: Vec<u8>,
}

impl Channel {
    /// None if the gateway does not attach it.
    pub async fn attach(port: u16, token: &str) -> Option<Self> {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        connection.set_nodelay(true).ok()?;
        let upgrade = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n\r\n",
            bearer(token)
        );
        connection.write_all(upgrade.as_bytes()).await.ok()?;
        let mut channel = Self { connection, received: Vec::new() };
        channel.read_until("101 Switching").await?;
        channel.send(r#"{"type":"connection_init","capabilities":{"media":["ws"]}}"#).await?;
        channel.read_until("\"connection_ack\"").await?;
        channel.send(r#"{"type":"microphone_state_ack","version":1,"isMicrophoneEnabled":true}"#).await?;
        Some(channel)
    }

    pub async fn send(&mut self, text: &str) -> Option<()> {
        self.connection.write_all(&frame(text)).await.ok()
    }

    /// Reads until this text arrived. None if the gateway closes or is silent.
    pub async fn read_until(&mut self, part: &str) -> Option<()> {
        self.read_within(part, Duration::from_secs(20)).await
    }

    pub async fn read_within(&mut self, part: &str, time: Duration) -> Option<()> {
        timeout(time, self.take_until(part)).await.ok()?.map(drop)
    }

    /// What comes before this text, which is passed over.
    pub async fn take_until(&mut self, part: &str) -> Option<String> {
        let reading = async {
            loop {
                if let Some(at) =
                    self.received.windows(part.len()).position(|window| window == part.as_bytes())
                {
                    let taken: Vec<u8> = self.received.drain(..at + part.len()).take(at).collect();
                    return Some(String::from_utf8_lossy(&taken).into_owned());
                }
                if self.connection.read_buf(&mut self.received).await.ok()? == 0 {
                    return None;
                }
            }
        };
        timeout(Duration::from_secs(20), reading).await.ok()?
    }
}
