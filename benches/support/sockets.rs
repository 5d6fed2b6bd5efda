//! Clients as plain sockets, thousands on one thread.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub async fn connect(port: u16) -> TcpStream {
    let connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.set_nodelay(true).unwrap();
    connection
}

/// Creates a session and upgrades to its control channel. Returns the control token, too.
#[allow(dead_code, reason = "not every benchmark has such clients")]
pub async fn upgrade(port: u16, user: &str) -> (TcpStream, String) {
    let mut connection = connect(port).await;
    let body = format!("{{\"user_id\":\"{user}\"}}");
    let request = format!(
        "POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut connection, "}", "\"control_token\"").await;
    let session: serde_json::Value = serde_json::from_str(&answer[answer.find('{').unwrap()..]).unwrap();
    let token = session["control_token"].as_str().unwrap().to_owned();
    switch(&mut connection, &token).await;
    (connection, token)
}

/// Upgrades to a control channel.
#[allow(dead_code, reason = "not every benchmark has such clients")]
pub async fn switch(connection: &mut TcpStream, token: &str) {
    let upgrade = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    connection.write_all(upgrade.as_bytes()).await.unwrap();
    read_until(connection, "\r\n\r\n", "101 Switching").await;
}

/// Reads until the text has this end and contains that text.
#[allow(dead_code, reason = "not every benchmark has such clients")]
pub async fn read_until(connection: &mut TcpStream, end: &str, part: &str) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if text.ends_with(end) && text.contains(part) {
            return text.into_owned();
        }
        let read = tokio::time::timeout(Duration::from_secs(20), connection.read_buf(&mut bytes)).await;
        assert!(
            read.expect("an answer within 20 s").unwrap() > 0,
            "closed: {}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

/// A text frame of a client, masked with zeros (RFC 6455 §5.3 requires a mask).
pub fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}
