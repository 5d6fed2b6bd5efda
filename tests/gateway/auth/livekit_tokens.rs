//! Every way to get a LiveKit token, and what it is good for.

use std::collections::HashSet;

use jsonwebtoken::{DecodingKey, Validation};
use june_client::SessionInfo;
use june_edge::{
    livekit::token::{AGENT_TTL, CLIENT_TTL, Claims, GUEST_TTL},
    protocol::{ToClient, edge_v1::from_client::ConnectionInit},
};
use livekit_api::access_token::TokenVerifier;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use crate::{
    livekit::Livekit,
    support::{Glasses, LIVEKIT_SECRET, TestGateway},
};

/// A token, whose it should be, and how long it should live.
struct Issued {
    way: &'static str,
    token: String,
    identity: String,
    seconds: u64,
}

fn issued(way: &'static str, token: &Value, identity: &str, seconds: u64) -> Issued {
    let token = token.as_str().unwrap_or_else(|| panic!("no token by {way}")).to_owned();
    Issued { way, token, identity: identity.to_owned(), seconds }
}

/// A session and the tokens that REST gives for it.
async fn by_rest(gateway: &TestGateway, user: &str) -> (SessionInfo, Vec<Issued>) {
    let client = CLIENT_TTL.as_secs();
    let (status, created) = gateway.post("/api/sessions", &json!({"user_id": user})).await;
    assert_eq!(status, 201, "{user:?}: {created}");
    let path = format!("/api/sessions/{}", created["session_id"].as_str().unwrap());
    let (_, shown) = gateway.get(&path).await;
    let (_, renewed) = gateway.post(&format!("{path}/token"), &Value::Null).await;
    let invitation = json!({"session_id": created["session_id"], "guest_name": user});
    let (_, guest) = gateway.post(&format!("{path}/guest-token"), &invitation).await;
    let identity = guest["identity"].as_str().unwrap();
    let tokens = vec![
        issued("create", &created["access_token"], user, client),
        issued("show", &shown["access_token"], user, client),
        issued("renew", &renewed["access_token"], user, client),
        issued("guest-token", &guest["access_token"], identity, GUEST_TTL.as_secs()),
    ];
    (serde_json::from_value(created).unwrap(), tokens)
}

/// The tokens that come with a control channel, and the one our own agent joins with.
async fn by_channel(livekit: &mut Livekit, session: SessionInfo, user: &str) -> Vec<Issued> {
    let client = CLIENT_TTL.as_secs();
    let mut glasses = Glasses::attach(session, ConnectionInit::default()).await.unwrap();
    let ack = glasses.ack.livekit.clone().unwrap().token;
    glasses.say(r#"{"type":"livekit_init","mode":"publish"}"#).await;
    let info = glasses
        .wait_for(|message| match message {
            ToClient::LivekitInfo(info) => Some(info.token.clone()),
            _ => None,
        })
        .await;
    let identity = format!("cloud-agent:{user}");
    let agent = livekit.join(&identity).await.token;
    vec![
        issued("connection_ack", &ack.into(), user, client),
        issued("livekit_info", &info.into(), user, client),
        issued("agent", &agent.into(), &identity, AGENT_TTL.as_secs()),
    ]
}

fn jti(token: &str) -> uuid::Uuid {
    let key = DecodingKey::from_secret(LIVEKIT_SECRET.as_bytes());
    jsonwebtoken::decode::<Claims>(token, &key, &Validation::default()).unwrap().claims.jti
}

/// Users as they may be named: plain, with every sign there is, and as addresses.
fn users() -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let names = "[a-z]{1,12}|[^\\p{C}\\p{Z}]{1,40}|[a-z]{1,8}@[a-z]{1,8}\\.org";
    (0..12).map(|_| names.new_tree(&mut runner).unwrap().current()).collect()
}

#[actix_web::test]
async fn no_way_to_a_token_gives_more_than_one_room_for_its_time() {
    let mut seen = HashSet::new();
    for delivery in ["ws", "room"] {
        let mut livekit = Livekit::start().await;
        let gateway =
            TestGateway::with(&[("LIVEKIT_URL", &livekit.url), ("SPEECH_DELIVERY", delivery)]).await;
        let mut sessions = Vec::new();
        for user in users() {
            sessions.push((by_rest(&gateway, &user).await, user));
        }
        assert!(livekit.is_untouched(), "sessions and tokens ask nothing of LiveKit");
        for ((session, mut tokens), user) in sessions {
            let room = session.room_name.clone();
            tokens.extend(by_channel(&mut livekit, session, &user).await);
            for issued in tokens {
                check(&issued, room.as_str(), delivery == "room");
                assert!(seen.insert(jti(&issued.token)), "{} gave a token twice", issued.way);
            }
        }
    }
}

/// That a token opens one room, to whom it should, for as long as it should, and nothing else.
fn check(Issued { way, token, identity, seconds }: &Issued, room: &str, speech_in_room: bool) {
    let claims = TokenVerifier::with_api_key("devkey", LIVEKIT_SECRET).verify(token).unwrap();
    let video = claims.video;
    assert!(video.room_join && video.room == room, "{way}: {}", video.room);
    assert_eq!(claims.sub, *identity, "{way}");
    let more = [video.room_admin, video.room_record, video.room_list, video.room_create];
    assert_eq!(more, [false; 4], "{way}");
    assert!(!(video.ingress_admin || video.recorder || claims.sip.admin || claims.sip.call), "{way}");
    assert_eq!(video.can_update_own_metadata, None, "{way}");
    assert_eq!((claims.exp - claims.nbf) as u64, *seconds, "{way}");
    let (publish, subscribe) = match *way {
        "agent" => (speech_in_room, true),
        "guest-token" => (true, true),
        _ => (true, speech_in_room),
    };
    assert_eq!((video.can_publish, video.can_subscribe), (Some(publish), Some(subscribe)), "{way}");
    if *way != "agent" {
        assert_eq!(video.can_publish_sources, ["microphone"], "{way}");
    }
}

#[actix_web::test]
async fn a_guest_gets_a_token_of_their_own() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let path = format!("/api/sessions/{}/guest-token", session.session_id);
    let body = json!({"session_id": session.session_id, "guest_name": " Bob  B. "});

    let (status, first) = gateway.post(&path, &body).await;
    let (_, second) = gateway.post(&path, &body).await;

    assert_eq!(status, 200);
    assert_eq!(first["room_name"], session.room_name.as_str());
    assert_eq!(first["livekit_url"], "ws://127.0.0.1:9");
    assert_eq!(first["guest_name"], "Bob  B.");
    assert!(first["identity"].as_str().unwrap().starts_with("guest:bob-b-"), "{first}");
    assert_ne!(first["identity"], second["identity"]);
    let token = first["access_token"].as_str().unwrap();
    let claims = TokenVerifier::with_api_key("devkey", LIVEKIT_SECRET).verify(token).unwrap();
    assert_eq!((claims.sub.as_str(), claims.name.as_str()), (first["identity"].as_str().unwrap(), "Bob  B."));
    assert_eq!(claims.video.can_publish_data, Some(false));
    assert_eq!(first["access_token_expires_at"], claims.exp);
}

#[actix_web::test]
async fn a_guest_needs_a_name_and_the_session_of_the_path() {
    let gateway = TestGateway::start().await;
    let (ann, bob) = (gateway.session("ann").await, gateway.session("bob").await);
    let path = format!("/api/sessions/{}/guest-token", ann.session_id);
    for body in [
        json!({"session_id": bob.session_id, "guest_name": "Eve"}),
        json!({"session_id": "nonsense", "guest_name": "Eve"}),
        json!({"guest_name": "Eve"}),
        json!({"session_id": ann.session_id}),
        json!({"session_id": ann.session_id, "guest_name": ""}),
        json!({"session_id": ann.session_id, "guest_name": "x".repeat(65)}),
        json!({"session_id": ann.session_id, "guest_name": "a\u{7}b"}),
    ] {
        let (status, problem) = gateway.post(&path, &body).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("INVALID_REQUEST")), "{body}");
    }
}
