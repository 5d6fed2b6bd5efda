//! What asks for an upgrade, byte by byte.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{TestGateway, soon};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends all of it at once; reads until there is this text, or to the end.
async fn exchange(gateway: &TestGateway, sent: &[u8], until: Option<&str>) -> String {
    soon(async {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read);
            if until.is_some_and(|until| text.contains(until))
                || stream.read_buf(&mut read).await.unwrap() == 0
            {
                return String::from_utf8_lossy(&read).into_owned();
            }
        }
    })
    .await
}

fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

/// A text frame of a client (RFC 6455 §5.2), masked with zeros.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[actix_web::test]
async fn what_comes_together_with_the_request_is_heard() {
    let gateway = TestGateway::start().await;
    let token = gateway.session("john").await.control_token;
    let request = get(&format!("/v1/ws?token={token}"), UPGRADE);
    let sent = [request, text(r#"{"type":"connection_init"}"#)].concat();

    let read = exchange(&gateway, &sent, Some("connection_ack")).await;

    assert!(read.starts_with("HTTP/1.1 101 "), "{read}");
    assert!(read.contains("connection_ack"), "{read}");
}

#[actix_web::test]
async fn requests_before_it_are_answered_first() {
    let gateway = TestGateway::start().await;
    let sent = [get("/livez", ""), get("/v1/ws", UPGRADE)].concat();

    let read = exchange(&gateway, &sent, Some("HTTP/1.1 101 ")).await;

    assert!(read.starts_with("HTTP/1.1 200 "), "{read}");
}

#[actix_web::test]
async fn an_answer_that_is_no_upgrade_ends_the_connection() {
    let gateway = TestGateway::start().await;
    for (path, status) in [("/livez", 200), ("/nowhere", 404), ("/v1/ws?token=nonsense", 401)] {
        let read = exchange(&gateway, &get(path, UPGRADE), None).await;
        let (head, body) = read.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{read}");
        assert!(head.contains("connection: close"), "{read}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{read}");
    }
}

#[actix_web::test]
async fn an_answer_without_an_end_comes_in_chunks() {
    let gateway = TestGateway::start().await;
    let request = get("/api/livekit/participants/stream?room=lounge", UPGRADE);

    let read = exchange(&gateway, &request, Some("event: snapshot")).await;

    assert!(read.to_lowercase().contains("transfer-encoding: chunked"), "{read}");
    assert!(read.contains("event: snapshot"), "{read}");
}
