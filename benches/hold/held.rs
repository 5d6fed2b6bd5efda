//! Connections that begin something and never end it: how many are still open after a minute.

use std::{io::ErrorKind, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    client::{BACKEND, bearer, token},
    gateway_with_users,
    sockets::connect,
};

/// Of each form.
const CONNECTIONS: usize = 50;

const WAIT: Duration = Duration::from_secs(60);

const UPGRADE: &str = "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The ten forms, and how many of each are open after the wait.
pub async fn after_a_minute() -> Vec<(&'static str, usize)> {
    // Clients answer pings: one that only holds its connection is found out.
    let settings = [("SESSION_HEARTBEAT_MS", "10000"), ("SESSION_DEAD_AFTER_MS", "30000")];
    let gateway = gateway_with_users(&settings);
    let mut opened = Vec::new();
    for (form, begin) in forms() {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = connect(gateway.port).await;
            connection.write_all(&begin).await.unwrap();
            connections.push(connection);
        }
        opened.push((form, connections));
    }
    tokio::time::sleep(WAIT).await;
    opened.iter().map(|(form, all)| (*form, all.iter().filter(|one| is_open(one)).count())).collect()
}

fn forms() -> Vec<(&'static str, Vec<u8>)> {
    let credential = bearer(&token("mallory"));
    let post = |path: &str, headers: &str, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        format!("{head}{headers}\r\n\r\n{body}").into_bytes()
    };
    let with_key = &format!("X-API-Key: {BACKEND}");
    let half_frame =
        [format!("{UPGRADE}{credential}\r\n\r\n").as_bytes(), &[0x81, 0xFE, 0x10, 0, 0, 0, 0, 0, b'{']]
            .concat();
    vec![
        ("nothing at all", Vec::new()),
        ("half a request line", b"GET /hea".to_vec()),
        ("half the headers", b"GET /health HTTP/1.1\r\nHost: local".to_vec()),
        ("a webhook with one byte of its body", post("/api/livekit/webhook", "Content-Length: 200000", "{")),
        (
            "a webhook in chunks without end",
            post("/api/livekit/webhook", "Transfer-Encoding: chunked", "1\r\n{\r\n"),
        ),
        (
            "a webhook that asks for an upgrade",
            post(
                "/api/livekit/webhook",
                "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 200000",
                "{",
            ),
        ),
        (
            "a session with one byte of its body",
            post("/api/sessions", &format!("{with_key}\r\nContent-Length: 200"), "{"),
        ),
        (
            "an answered request, and no other",
            format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{credential}\r\n\r\n").into_bytes(),
        ),
        ("an upgrade without connection_init", format!("{UPGRADE}{credential}\r\n\r\n").into_bytes()),
        ("half a WebSocket frame", half_frame),
    ]
}

/// Reads what there is: the end of the connection, or its reset, comes after it.
fn is_open(connection: &TcpStream) -> bool {
    let mut buffer = [0; 16 * 1024];
    loop {
        match connection.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
