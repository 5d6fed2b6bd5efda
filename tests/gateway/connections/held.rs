//! Clients that begin something and do not go on: each of their connections ends, and others are served meanwhile.

use serde_json::{Value, json};

use super::raw_http::{RawClient, UPGRADE, get, post};
use crate::{
    rooms::updates::{event, webhook, webhook_signature},
    support::TestGateway,
};

/// Longer than a test waits.
const NEVER: &str = "3600000";
/// Long enough for the requests of other clients, also on a busy machine.
const SOON: &str = "2000";

/// With long deadlines, except for one.
async fn gateway(deadline: &str) -> TestGateway {
    let names =
        ["HTTP_HEAD_TIMEOUT_MS", "HTTP_BODY_TIMEOUT_MS", "HTTP_WRITE_TIMEOUT_MS", "WS_FRAME_TIMEOUT_MS"];
    let settings: Vec<_> =
        names.map(|name| (name, if name == deadline { SOON } else { NEVER })).into_iter().collect();
    TestGateway::with(&settings).await
}

/// What the gateway answers to a client that sends this and then waits. Another client is served meanwhile.
async fn answer_to(gateway: &TestGateway, sent: &str) -> String {
    let mut client = RawClient::sends(gateway, sent).await;
    // On a connection of its own: one that waits in a pool ends like the client's.
    RawClient::sends(gateway, get("/livez", "")).await.read_until("HTTP/1.1 200 ").await;
    client.read_to_end().await
}

#[actix_web::test]
async fn a_webhook_without_a_signature_is_refused_before_its_body() {
    let gateway = gateway("none").await;
    for path in ["/api/livekit/webhook", "/api/livekit-webhooks"] {
        let answer = answer_to(&gateway, &post(path, "Content-Length: 200000\r\n", "{")).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
}

#[actix_web::test]
async fn a_refused_body_without_an_end_is_waited_for_no_longer_than_a_request() {
    let gateway = gateway("HTTP_HEAD_TIMEOUT_MS").await;

    let chunked = post("/api/livekit/webhook", "Transfer-Encoding: chunked\r\n", "1\r\n{\r\n");

    let answer = answer_to(&gateway, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[actix_web::test]
async fn a_body_that_is_not_completed_is_answered_with_408() {
    let gateway = gateway("HTTP_BODY_TIMEOUT_MS").await;
    let json = "Content-Type: application/json\r\n";
    for (path, headers, begun) in [
        ("/api/sessions", "Content-Length: 200\r\n", r#"{"user_id": "#),
        ("/api/client/audio/configure?token=x", "Content-Length: 200\r\n", "{"),
    ] {
        let answer = answer_to(&gateway, &post(path, &[json, headers].concat(), begun)).await;
        let expected = if path == "/api/sessions" { "408" } else { "401" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

#[actix_web::test]
async fn a_body_in_chunks_that_is_not_completed_is_answered_with_408_and_ends() {
    let settings = [("HTTP_HEAD_TIMEOUT_MS", SOON), ("HTTP_BODY_TIMEOUT_MS", SOON)];
    let gateway = TestGateway::with(&settings).await;
    let headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";

    let answer = answer_to(&gateway, &post("/api/sessions", headers, "1\r\n{\r\n")).await;

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("REQUEST_TIMEOUT"), "{answer}");
}

#[actix_web::test]
async fn a_signed_webhook_whose_body_does_not_come_is_answered_with_408() {
    let gateway = gateway("HTTP_BODY_TIMEOUT_MS").await;
    let signature = webhook_signature("{}");
    let headers = format!("Authorization: {signature}\r\nContent-Length: 200000\r\n");

    let answer = answer_to(&gateway, &post("/api/livekit/webhook", &headers, "{")).await;

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[actix_web::test]
async fn a_body_over_the_limit_is_refused_unread() {
    let gateway = gateway("none").await;
    let json = "Content-Type: application/json\r\n";
    for path in ["/api/sessions", "/api/livekit/webhook", "/api/client/goodbye", "/livez"] {
        let answer =
            answer_to(&gateway, &post(path, &format!("{json}Content-Length: 1000000000\r\n"), "{")).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
        assert!(answer.contains("TOO_LARGE"), "{path}: {answer}");
    }
}

#[actix_web::test]
async fn a_request_for_an_upgrade_with_a_body_is_refused() {
    let gateway = gateway("none").await;
    for (headers, body) in
        [("Content-Length: 200000\r\n", "{"), ("Transfer-Encoding: chunked\r\n", "1\r\n{\r\n0\r\n\r\n")]
    {
        for path in ["/api/livekit/webhook", "/api/sessions", "/v1/ws"] {
            let request = post(path, &[UPGRADE, headers].concat(), body);
            let answer = answer_to(&gateway, &request.replace("POST /v1/ws", "GET /v1/ws")).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        }
    }
}

#[actix_web::test]
async fn a_request_that_would_also_like_http_2_is_an_ordinary_one() {
    let gateway = TestGateway::start().await;
    let headers = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\
                   Content-Type: application/json\r\nContent-Length: 17\r\n";

    let answer = answer_to(&gateway, &post("/api/sessions", headers, r#"{"user_id":"ann"}"#)).await;

    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

#[actix_web::test]
async fn a_request_for_an_upgrade_of_another_route_is_answered_and_ended_whatever_follows_it() {
    let gateway = gateway("none").await;
    for (path, status) in
        [("/api/livekit/webhook", 401), ("/api/sessions", 400), ("/api/client/goodbye", 401), ("/livez", 405)]
    {
        let headers = [UPGRADE, "Content-Type: application/json\r\n"].concat();
        let answer = answer_to(&gateway, &post(path, &headers, "{")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}

#[actix_web::test]
async fn a_head_that_is_not_completed_ends_the_connection() {
    let gateway = gateway("HTTP_HEAD_TIMEOUT_MS").await;
    for begun in ["", "GET /livez HTTP/1.1\r\nHost: ju"] {
        let answer = answer_to(&gateway, begun).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[actix_web::test]
async fn a_second_head_that_is_not_completed_ends_the_connection_too() {
    let gateway = gateway("HTTP_HEAD_TIMEOUT_MS").await;

    let mut client = RawClient::sends(&gateway, get("/livez", "")).await;
    client.read_until("HTTP/1.1 200 ").await;

    client.send("GET /livez HTTP/1.1\r\nHost: ju").await;

    assert_eq!(gateway.get("/livez").await.0, 200);
    assert_eq!(client.read_to_end().await.matches("HTTP/1.1 ").count(), 1);
}

#[actix_web::test]
async fn a_connection_is_kept_while_requests_come() {
    let gateway = TestGateway::start().await;
    let mut client = RawClient::connect(&gateway).await;
    for path in ["/livez", "/readyz", "/health"] {
        client.send(get(path, "")).await;
        let expected = if path == "/health" { "\"parts\"" } else { "ok" };
        client.read_until(expected).await;
    }
    client.send(post("/api/sessions", "Content-Type: application/json\r\nContent-Length: 17\r\n", "")).await;
    client.send(r#"{"user_id":"ann"}"#).await;

    let read = client.read_until("room_name").await;

    assert_eq!(read.matches("HTTP/1.1 20").count(), 4, "{read}");
}

#[actix_web::test]
async fn responses_that_are_not_read_end_the_connection() {
    let gateway = gateway("HTTP_WRITE_TIMEOUT_MS").await;
    let client = RawClient::connect(&gateway).await;

    client.send_until_it_ends(get("/api/asyncapi.json", "").as_bytes()).await;

    assert_eq!(gateway.get("/livez").await.0, 200);
}

#[actix_web::test]
async fn an_event_stream_that_is_not_read_ends() {
    let gateway = gateway("HTTP_WRITE_TIMEOUT_MS").await;
    let path = "/api/livekit/participants/stream?room=room-a";
    let mut client = RawClient::sends(&gateway, get(path, "")).await;
    client.read_until("event: snapshot").await;

    // More than the buffers of a connection hold.
    let happening = async {
        for n in 0.. {
            let mut joined = event("participant_joined", &format!("EV_{n}"), "room-a", &format!("PA_{n}"));
            joined["participant"]["metadata"] = Value::from("x".repeat(20_000));
            webhook(&gateway, "/api/livekit/webhook", &joined).await;
            let left = event("participant_left", &format!("EV_{n}_left"), "room-a", &format!("PA_{n}"));
            webhook(&gateway, "/api/livekit/webhook", &left).await;
        }
    };
    let request = get("/livez", "");
    tokio::select! {
        () = client.send_until_it_ends(request.as_bytes()) => {}
        () = happening => {}
    }

    assert_eq!(gateway.get("/livez").await.0, 200);
}

/// A client that is attached to a session of its own.
async fn attached(gateway: &TestGateway) -> RawClient {
    let session = gateway.session("ann").await;
    let request = get(&format!("/v1/ws?token={}", session.control_token), UPGRADE);
    let mut client = RawClient::sends(gateway, request).await;
    client.read_until("HTTP/1.1 101 ").await;
    client.send(text(r#"{"type":"connection_init"}"#)).await;
    client.read_until("connection_ack").await;
    client
}

#[actix_web::test]
async fn a_websocket_that_reads_no_pongs_ends() {
    let gateway = gateway("HTTP_WRITE_TIMEOUT_MS").await;
    let client = attached(&gateway).await;

    let ping = [&[0x89, 0xFD, 0, 0, 0, 0][..], &[b'x'; 125]].concat();
    client.send_until_it_ends(&ping).await;

    assert_eq!(gateway.get("/livez").await.0, 200);
}

#[actix_web::test]
async fn a_frame_that_is_not_completed_ends_the_connection() {
    let gateway = gateway("WS_FRAME_TIMEOUT_MS").await;
    let whole = text(r#"{"type":"connection_init"}"#);
    let oversized = [&[0x82, 0xFF][..], &u64::from(u32::MAX).to_be_bytes(), &[0; 5]].concat();
    for begun in [&whole[..1], &whole[..5], &whole[..20], &oversized[..]] {
        let mut client = attached(&gateway).await;

        client.send(begun).await;

        assert_eq!(gateway.get("/livez").await.0, 200);
        assert_eq!(client.close_code().await, Some(1008), "{begun:?}");
    }
}

#[actix_web::test]
async fn a_frame_without_an_end_is_skipped_no_longer_than_a_frame_may_take() {
    let gateway = gateway("WS_FRAME_TIMEOUT_MS").await;
    let mut client = attached(&gateway).await;
    client.send([&[0x82, 0xFF][..], &i64::MAX.to_be_bytes(), &[0; 4]].concat()).await;

    client.send_until_it_ends(&[0; 64 * 1024]).await;

    assert_eq!(gateway.get("/livez").await.0, 200);
}

#[actix_web::test]
async fn a_consumer_that_does_not_complete_a_frame_is_closed() {
    let gateway = gateway("WS_FRAME_TIMEOUT_MS").await;
    let mut client = RawClient::sends(&gateway, get("/api/consumer/ws", UPGRADE)).await;
    client.read_until("HTTP/1.1 101 ").await;

    client.send([0x81]).await;

    assert_eq!(client.close_code().await, Some(1008));
}

#[actix_web::test]
async fn a_client_that_answers_a_close_frame_is_not_kept_waiting_and_one_that_does_not_is_ended() {
    let gateway = gateway("none").await;
    for answers in [true, false] {
        let mut client = RawClient::sends(&gateway, get("/v1/ws", UPGRADE)).await;
        client.read_until("HTTP/1.1 101 ").await;
        // Another protocol: the channel is refused, with 1008.
        client.send(text(&json!({"type": "connection_init", "protocol": "soap"}).to_string())).await;
        client.read_until("UNSUPPORTED").await;
        if answers {
            client.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xF0]).await;
        }
        assert_eq!(client.close_code().await, Some(1008));
    }
}

/// A text frame, masked with zeros.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 126);
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}
