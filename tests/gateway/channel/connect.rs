//! Getting onto the control channel, and what happens to those who speak it badly.

use bytes::Bytes;
use jsonwebtoken::{EncodingKey, Header};
use june_client::{Channel, ClientError, Event};
use june_edge::protocol::{
    MAX_BINARY_BYTES, MAX_TEXT_BYTES, ToClient,
    edge_v1::{
        from_client::ConnectionInit,
        to_client::{MediaReason, MediaSource},
    },
};
use serde_json::json;

use crate::support::{Glasses, TestGateway, USERS_SECRET, soon};

fn users_token(secret: &str, expires_in: i64) -> String {
    let exp = june_edge::clock::unix_s() as i64 + expires_in;
    let claims = json!({"sub": "1", "email": "ann@example.org", "exp": exp});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// The code that an upgrade is refused with.
async fn refusal(gateway: &TestGateway, token: &str) -> String {
    match Channel::open_unattached(&gateway.ws_url(), token).await {
        Err(ClientError::Refused { code, .. }) => code,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("was let in"),
    }
}

#[actix_web::test]
async fn who_has_no_good_token_is_refused_before_the_upgrade() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;

    assert_eq!(refusal(&gateway, "nonsense").await, "INVALID_TOKEN");
    assert_eq!(refusal(&gateway, &users_token(USERS_SECRET, -600)).await, "EXPIRED_TOKEN");
    assert_eq!(refusal(&gateway, &users_token("somebody else's", 600)).await, "INVALID_TOKEN");
    let upgrade = |request: reqwest::RequestBuilder| {
        request
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let request =
        gateway.http.get(format!("{}/v1/ws", gateway.url)).header("Authorization", "Basic YW5uOmFubg==");
    let response = upgrade(request).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!((&body["type"], &body["code"]), (&json!("connection_error"), &json!("MISSING_TOKEN")));
}

#[actix_web::test]
async fn a_token_may_come_in_the_query_for_clients_that_cannot_set_headers() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let url = format!("{}?token={}", session.control_url, session.control_token);

    let (socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();

    drop(socket);
}

#[actix_web::test]
async fn a_user_with_their_own_token_gets_their_newest_session() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    let newest = gateway.session("ann@example.org").await;
    let token = users_token(USERS_SECRET, 600);

    let (_, ack) = Channel::open(&gateway.ws_url(), &token, ConnectionInit::default()).await.unwrap();

    assert_eq!(ack.session_id, newest.session_id);
}

#[actix_web::test]
async fn an_unknown_subprotocol_is_refused() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let request = gateway
        .http
        .get(format!("{}/v1/ws?token={}", gateway.url, session.control_token))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Protocol", "soap");

    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[actix_web::test]
async fn the_acknowledgement_says_all_that_a_client_needs() {
    let gateway = TestGateway::start().await;
    let glasses = gateway.glasses("ann").await;

    let ack = &glasses.ack;
    assert_eq!(ack.session_id, glasses.session.session_id);
    assert_eq!((ack.protocol.as_str(), ack.epoch, ack.resumed), ("edge.v1", 1, false));
    assert_eq!((ack.grace_ms, ack.heartbeat_ms), (60_000, 10_000));
    assert_eq!(ack.media.offered, [MediaSource::Livekit, MediaSource::Ws]);
    let livekit = ack.livekit.as_ref().unwrap();
    assert_eq!(livekit.room_name, glasses.session.room_name);
    assert_eq!(livekit.track_name, "mic");
}

#[actix_web::test]
async fn without_models_the_channel_says_that_nothing_is_transcribed_and_how_to_get_it() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    let why = glasses
        .wait_for(|message| match message {
            ToClient::SttState { message, .. } => message.clone(),
            _ => None,
        })
        .await;

    assert!(why.contains("scripts/setup models"), "{why}");
}

#[actix_web::test]
async fn with_livekit_out_of_reach_the_channel_says_so_and_goes_on() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    glasses
        .wait_for(|message| match message {
            ToClient::MediaState { reason: MediaReason::LivekitUnreachable, .. } => Some(()),
            _ => None,
        })
        .await;

    glasses.channel.writer().send_audio(&[1; 320], 0).await.unwrap();
    glasses
        .wait_for(|message| match message {
            ToClient::MediaState { active: MediaSource::Ws, .. } => Some(()),
            _ => None,
        })
        .await;
}

#[actix_web::test]
async fn what_cannot_be_read_is_answered_and_the_session_lives() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    glasses.say("{nonsense").await;
    assert_eq!(glasses.error().await, "MALFORMED_MESSAGE");
    glasses.say(r#"{"type":"say"}"#).await;
    assert_eq!(glasses.error().await, "MALFORMED_MESSAGE");
    for frame in [vec![], vec![0; 3], vec![0; 40]] {
        glasses.channel.writer().send_raw(Err(Bytes::from(frame))).await.unwrap();
        assert_eq!(glasses.error().await, "MALFORMED_MESSAGE");
    }
    glasses.ping().await;
}

#[actix_web::test]
async fn frames_over_the_limit_are_answered_and_the_session_lives() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    let text = format!(r#"{{"type":"say","text":"{}"}}"#, "x".repeat(MAX_TEXT_BYTES));
    glasses.say(&text).await;
    assert_eq!(glasses.error().await, "TOO_LARGE");
    glasses.channel.writer().send_raw(Err(Bytes::from(vec![0xE1; 4 * MAX_BINARY_BYTES]))).await.unwrap();
    assert_eq!(glasses.error().await, "TOO_LARGE");
    glasses.ping().await;
}

#[actix_web::test]
async fn a_codec_that_is_not_decoded_is_refused_by_name() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    glasses.say(r#"{"type":"audio_config","codec":"lc3","sampleRate":16000}"#).await;

    assert_eq!(glasses.error().await, "UNSUPPORTED");
    glasses.ping().await;
}

#[actix_web::test]
async fn a_client_that_says_something_else_first_is_told_what_is_missing() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let mut channel = Channel::open_unattached(&session.control_url, &session.control_token).await.unwrap();

    channel.writer().send_raw(Ok(r#"{"type":"say","text":"Hello"}"#.into())).await.unwrap();

    let Event::Message(_, ToClient::Error { message, .. }) = soon(channel.next()).await else {
        panic!("no error")
    };
    assert_eq!(message, "send connection_init first");
}

#[actix_web::test]
async fn a_second_init_changes_nothing() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    glasses.say(r#"{"type":"connection_init"}"#).await;

    assert_eq!(glasses.error().await, "SESSION_ERROR");
    glasses.ping().await;
}

#[actix_web::test]
async fn a_fresh_token_can_be_asked_for() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    glasses.say(r#"{"type":"livekit_init"}"#).await;

    let info = glasses
        .wait_for(|message| match message {
            ToClient::LivekitInfo(info) => Some(info.clone()),
            _ => None,
        })
        .await;
    assert_eq!(info.identity.as_str(), "ann");
    assert_ne!(info.token, glasses.ack.livekit.unwrap().token);
}

#[actix_web::test]
async fn the_channel_can_be_opened_again_after_a_handshake_that_failed() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    refusal(&gateway, "nonsense").await;

    Glasses::attach(session, ConnectionInit::default()).await.unwrap();
}
