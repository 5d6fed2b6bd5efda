//! Tokens for event streams: they outlive the tokens by which they are obtained, and open nothing else.

use jsonwebtoken::{EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    auth::refusals::{filled, routes},
    livekit::Livekit,
    support::{BACKEND, LIVEKIT_SECRET, TestGateway, answer, soon},
};

/// A gateway that needs tokens; its LiveKit knows how to remove participants.
async fn start(livekit: &Livekit) -> TestGateway {
    let settings = [
        ("LIVEKIT_URL", livekit.url.as_str()),
        ("API_KEYS", BACKEND),
        ("HOST", "127.0.0.1"),
        ("AUTH_FAILURES_PER_MINUTE", "0"),
    ];
    TestGateway::with(&settings).await
}

/// A LiveKit token for a room, as any holder of the API secret can make one.
fn livekit_token(identity: &str, room: &str, expires_in_s: i64) -> String {
    let claims = json!({
        "iss": "devkey", "sub": identity, "exp": june_edge::clock::unix_s() as i64 + expires_in_s,
        "video": {"room": room, "roomJoin": true},
    });
    let key = EncodingKey::from_secret(LIVEKIT_SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

async fn session(gateway: &TestGateway, user: &str) -> Value {
    let request = gateway.http.post(format!("{}/api/sessions", gateway.url)).bearer_auth(BACKEND);
    answer(request.json(&json!({"user_id": user}))).await.1
}

async fn stream_token(gateway: &TestGateway, room: &str, token: &str) -> (u16, Value) {
    let url = format!("{}/api/livekit/participants/stream-token", gateway.url);
    answer(gateway.http.post(url).bearer_auth(token).json(&json!({"room": room}))).await
}

/// The code by which an event stream is refused; none if it is opened.
async fn refusal(gateway: &TestGateway, url: &str) -> Option<(u16, String)> {
    let response = soon(gateway.http.get(url).send()).await.unwrap();
    if response.status() == 200 {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        return None;
    }
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    Some((status, problem["code"].as_str().unwrap().to_owned()))
}

fn stream_url(gateway: &TestGateway, room: &str, token: &str) -> String {
    format!("{}/api/livekit/participants/stream?room={room}&token={token}", gateway.url)
}

#[actix_web::test]
async fn a_stream_is_opened_again_after_the_end_of_the_token_that_was_exchanged() {
    let livekit = Livekit::start().await;
    let gateway = start(&livekit).await;
    let now = june_edge::clock::unix_s();

    let (status, issued) = stream_token(&gateway, "room-a", &livekit_token("eve", "room-a", 60)).await;

    assert_eq!(status, 200, "{issued}");
    assert!(issued["expires_at"].as_u64().unwrap() >= now + 12 * 3600, "{issued}");
    let url = issued["stream_url"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(refusal(&gateway, url).await, None);
    }
    let ended = stream_url(&gateway, "room-a", &livekit_token("eve", "room-a", -60));
    assert_eq!(refusal(&gateway, &ended).await, Some((401, "INVALID_TOKEN".into())));
}

#[actix_web::test]
async fn whoever_may_see_a_room_gets_a_token_for_it_and_nobody_else() {
    let livekit = Livekit::start().await;
    let gateway = start(&livekit).await;
    let (ann, bob) = (session(&gateway, "ann").await, session(&gateway, "bob").await);
    let room = ann["room_name"].as_str().unwrap();

    for token in [BACKEND, ann["control_token"].as_str().unwrap(), ann["access_token"].as_str().unwrap()] {
        let (status, issued) = stream_token(&gateway, room, token).await;
        assert_eq!(status, 200, "{issued}");
        assert_eq!(refusal(&gateway, issued["stream_url"].as_str().unwrap()).await, None);
    }
    for (token, expected) in
        [(bob["control_token"].as_str().unwrap(), (403, "FORBIDDEN")), ("guess", (401, "INVALID_TOKEN"))]
    {
        let (status, problem) = stream_token(&gateway, room, token).await;
        assert_eq!((status, problem["code"].as_str().unwrap()), expected);
    }
    let nobody = format!("{}/api/livekit/participants/stream-token", gateway.url);
    let (status, problem) = answer(gateway.http.post(nobody).json(&json!({"room": room}))).await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("MISSING_TOKEN")));
}

#[actix_web::test]
async fn a_stream_token_is_for_one_room_and_no_other_route() {
    let livekit = Livekit::start().await;
    let gateway = start(&livekit).await;
    let ann = session(&gateway, "ann").await;
    let (room, id) = (ann["room_name"].as_str().unwrap(), ann["session_id"].as_str().unwrap());
    let (_, issued) = stream_token(&gateway, room, ann["control_token"].as_str().unwrap()).await;
    let token = issued["stream_token"].as_str().unwrap();

    let elsewhere = stream_url(&gateway, "room-b", token);
    assert_eq!(refusal(&gateway, &elsewhere).await, Some((403, "FORBIDDEN".into())));
    let public = ["/api/asyncapi.json", "/api/client/min-version", "/api/livekit/participants/stream"];
    for (method, path) in routes() {
        let is_protected = path.starts_with("/api/") || path == "/metrics";
        if !is_protected || public.contains(&path) || path.contains("webhook") {
            continue;
        }
        let url = format!("{}{}?room={room}", gateway.url, filled(path, id));
        let body = match path {
            "/api/client/goodbye" => "",
            "/api/client/audio/configure" => r#"{"format":"pcm"}"#,
            _ => &json!({"user_id": "ann", "session_id": id, "guest_name": "Bob", "room": room}).to_string(),
        };
        let request = gateway.http.request(method.clone(), url).header("content-type", "application/json");
        let (status, problem) = answer(request.bearer_auth(token).body(body.to_owned())).await;
        assert_eq!((status, problem["code"].as_str()), (401, Some("INVALID_TOKEN")), "{method} {path}");
    }
    for path in ["/v1/ws", "/glasses-ws"] {
        let request = gateway.http.request(Method::GET, format!("{}{path}?token={token}", gateway.url));
        let upgrade = request
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer(upgrade).await.0, 401, "{path}");
    }
}

#[actix_web::test]
async fn somebody_who_is_removed_is_refused_when_they_reconnect_and_gets_no_new_token() {
    let livekit = Livekit::start().await;
    let gateway = start(&livekit).await;
    let ann = session(&gateway, "ann").await;
    let (room, id) = (ann["room_name"].as_str().unwrap(), ann["session_id"].as_str().unwrap());
    let by_control_token = ann["control_token"].as_str().unwrap();
    let (_, anns) = stream_token(&gateway, room, by_control_token).await;
    let (_, eves) = stream_token(&gateway, room, &livekit_token("eve", room, 60)).await;
    let (_, backends) = stream_token(&gateway, room, BACKEND).await;
    let url = |issued: &Value| issued["stream_url"].as_str().unwrap().to_owned();

    for identity in ["ann", "eve"] {
        let removal = format!("{}/api/sessions/{id}/participants/{identity}", gateway.url);
        assert_eq!(answer(gateway.http.delete(removal).bearer_auth(BACKEND)).await.0, 200);
    }

    for issued in [&anns, &eves] {
        assert_eq!(refusal(&gateway, &url(issued)).await, Some((403, "FORBIDDEN".into())));
    }
    assert_eq!(refusal(&gateway, &url(&backends)).await, None);
    let (status, problem) = stream_token(&gateway, room, by_control_token).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("FORBIDDEN")));
}
