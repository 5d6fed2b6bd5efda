//! Who is in a room, as LiveKit's webhooks tell it, pushed to the control channel.

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{EncodingKey, Header};
use june_edge::protocol::{ToClient, to_client::ParticipantsUpdate};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Glasses, LIVEKIT_SECRET, TestGateway, answer};

/// Sends a webhook as LiveKit does.
pub async fn webhook(gateway: &TestGateway, path: &str, event: &Value) -> u16 {
    let body = event.to_string();
    let claims = json!({
        "iss": "devkey",
        "exp": june_edge::clock::unix_s() + 60,
        "sha256": STANDARD.encode(Sha256::digest(&body)),
    });
    let key = EncodingKey::from_secret(LIVEKIT_SECRET.as_bytes());
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
    let request = gateway.http.post(format!("{}{path}", gateway.url)).header("Authorization", token);
    answer(request.header("Content-Type", "application/webhook+json").body(body)).await.0
}

pub fn event(kind: &str, id: &str, room: &str, sid: &str) -> Value {
    json!({
        "event": kind, "id": id, "room": {"name": room},
        "participant": {"sid": sid, "identity": "bob", "name": "Bob", "joinedAtMs": "7"},
    })
}

async fn update(glasses: &mut Glasses) -> (ParticipantsUpdate, Value) {
    glasses
        .wait_for(|message| match message {
            ToClient::ParticipantsUpdate(update) => {
                let content = update.snapshot.as_ref().or(update.diff.as_ref()).unwrap();
                Some((update.clone(), content.clone()))
            }
            _ => None,
        })
        .await
}

#[actix_web::test]
async fn a_watcher_gets_everybody_first_and_then_what_changes() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    let room = glasses.session.room_name.to_string();
    assert_eq!(
        webhook(&gateway, "/api/livekit/webhook", &event("participant_joined", "EV_1", &room, "PA_1")).await,
        200
    );

    glasses.say(r#"{"type":"subscribe:participants"}"#).await;

    let (first, everybody) = update(&mut glasses).await;
    assert!(first.snapshot.is_some());
    assert_eq!(everybody[0]["sid"], "PA_1");

    webhook(&gateway, "/api/livekit-webhooks", &event("participant_joined", "EV_2", &room, "PA_2")).await;
    let (second, diff) = update(&mut glasses).await;
    assert_eq!((second.epoch, second.version), (first.epoch, first.version + 1));
    assert_eq!(diff["joined"][0]["sid"], "PA_2");

    webhook(&gateway, "/api/livekit/webhook", &event("participant_left", "EV_3", &room, "PA_1")).await;
    let (third, diff) = update(&mut glasses).await;
    assert_eq!(third.version, second.version + 1);
    assert_eq!(diff["left"][0], json!({"sid": "PA_1", "identity": "bob", "reason": "left"}));
}

#[actix_web::test]
async fn a_webhook_that_comes_twice_counts_once() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    let room = glasses.session.room_name.to_string();
    let joined = event("participant_joined", "EV_1", &room, "PA_1");
    for _ in 0..2 {
        assert_eq!(webhook(&gateway, "/api/livekit/webhook", &joined).await, 200);
    }

    glasses.say(r#"{"type":"subscribe:participants"}"#).await;

    assert_eq!(update(&mut glasses).await.0.version, 1);
}

#[actix_web::test]
async fn a_client_that_comes_back_watches_on_from_a_fresh_snapshot() {
    let gateway = TestGateway::start().await;
    let mut before = gateway.glasses("ann").await;
    let room = before.session.room_name.to_string();
    before.say(r#"{"type":"subscribe:participants"}"#).await;
    update(&mut before).await;
    before.channel.writer().close().await.unwrap();
    before.closed().await;
    webhook(&gateway, "/api/livekit/webhook", &event("participant_joined", "EV_1", &room, "PA_1")).await;

    let mut after = Glasses::attach(before.session, Default::default()).await.unwrap();

    let (first, everybody) = update(&mut after).await;
    assert!(first.snapshot.is_some());
    assert_eq!(everybody[0]["sid"], "PA_1");
}

#[actix_web::test]
async fn a_webhook_that_livekit_did_not_sign_is_refused() {
    let gateway = TestGateway::start().await;
    let body = event("participant_joined", "EV_1", "room-a", "PA_1");

    let (status, problem) = gateway.post("/api/livekit/webhook", &body).await;

    assert_eq!((status, problem["code"].as_str()), (401, Some("MISSING_TOKEN")));
}
