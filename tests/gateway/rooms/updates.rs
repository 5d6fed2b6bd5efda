//! Who is in a room, as LiveKit's webhooks report it, pushed to control channels and event streams.

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{EncodingKey, Header};
use june_edge::protocol::{ToClient, edge_v1::to_client::ParticipantsUpdate};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{BACKEND, Glasses, LIVEKIT_SECRET, TestGateway, answer, soon};

/// Sends a webhook as LiveKit does.
pub async fn webhook(gateway: &TestGateway, path: &str, event: &Value) -> u16 {
    signed_webhook(gateway, path, event.to_string()).await.0
}

/// The `Authorization` of a webhook with this body.
pub fn webhook_signature(body: &str) -> String {
    let claims = json!({
        "iss": "devkey",
        "exp": june_edge::clock::unix_s() + 60,
        "sha256": STANDARD.encode(Sha256::digest(body)),
    });
    let key = EncodingKey::from_secret(LIVEKIT_SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

async fn signed_webhook(gateway: &TestGateway, path: &str, body: String) -> (u16, Value) {
    let signature = webhook_signature(&body);
    let request = gateway.http.post(format!("{}{path}", gateway.url)).header("Authorization", signature);
    answer(request.header("Content-Type", "application/webhook+json").body(body)).await
}

/// A LiveKit token for a room, as any holder of the API secret can make one.
fn livekit_token(room: &str) -> String {
    livekit_token_of("eve", room)
}

pub fn livekit_token_of(identity: &str, room: &str) -> String {
    let claims = json!({
        "iss": "devkey", "sub": identity, "exp": june_edge::clock::unix_s() + 60,
        "video": {"room": room, "roomJoin": true},
    });
    let key = EncodingKey::from_secret(LIVEKIT_SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

/// An event stream.
struct Stream {
    response: reqwest::Response,
    text: String,
}

/// One event of a stream.
#[derive(Debug)]
struct StreamEvent {
    event: String,
    id: String,
    data: Value,
}

impl Stream {
    async fn open(gateway: &TestGateway, room: &str, token: &str, last_event_id: Option<&str>) -> Self {
        let url = format!("{}/api/livekit/participants/stream?room={room}&token={token}", gateway.url);
        let mut request = gateway.http.get(url);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; none where the stream has ended.
    async fn next(&mut self) -> Option<StreamEvent> {
        soon(async {
            loop {
                while let Some((block, rest)) = self.text.split_once("\n\n") {
                    let field = |name: &str| {
                        block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
                    };
                    let (event, id, data) = (field("event: "), field("id: "), field("data: "));
                    self.text = rest.to_owned();
                    // Without data it is a comment, or `retry`.
                    if let (Some(event), Some(id), Some(data)) = (event, id, data) {
                        return Some(StreamEvent { event, id, data: serde_json::from_str(&data).unwrap() });
                    }
                }
                let chunk = self.response.chunk().await.ok()??;
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        })
        .await
    }
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
                let content = update.snapshot.as_ref().map(|snapshot| json!(snapshot));
                let content = content.or_else(|| update.diff.as_ref().map(|diff| json!(diff))).unwrap();
                Some((update.clone(), content.clone()))
            }
            _ => None,
        })
        .await
}

#[actix_web::test]
async fn a_subscriber_gets_a_snapshot_first_and_then_what_changes() {
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
async fn a_repeated_webhook_is_applied_once() {
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
async fn a_client_that_reconnects_gets_a_new_snapshot() {
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

#[actix_web::test]
async fn an_event_stream_begins_with_a_snapshot_and_resumes_where_it_broke() {
    let gateway = TestGateway::start().await;
    webhook(&gateway, "/api/livekit/webhook", &event("participant_joined", "EV_1", "room-a", "PA_1")).await;
    let token = livekit_token("room-a");
    let mut stream = Stream::open(&gateway, "room-a", &token, None).await;

    let first = stream.next().await.unwrap();
    assert_eq!(first.event, "snapshot");
    assert_eq!(first.data["snapshot"][0]["sid"], "PA_1");
    assert_eq!(first.id, format!("{}:{}", first.data["epoch"], first.data["version"]));
    webhook(&gateway, "/api/livekit/webhook", &event("participant_joined", "EV_2", "room-a", "PA_2")).await;
    let second = stream.next().await.unwrap();
    assert_eq!(
        (second.event.as_str(), second.data["diff"]["joined"][0]["sid"].as_str()),
        ("diff", Some("PA_2"))
    );

    drop(stream);
    webhook(&gateway, "/api/livekit/webhook", &event("participant_left", "EV_3", "room-a", "PA_1")).await;
    let mut again = Stream::open(&gateway, "room-a", &token, Some(&second.id)).await;
    let missed = again.next().await.unwrap();
    assert_eq!(
        (missed.event.as_str(), missed.data["diff"]["left"][0]["sid"].as_str()),
        ("diff", Some("PA_1"))
    );

    let mut elsewhere = Stream::open(&gateway, "room-a", &token, Some("7:1")).await;
    let fresh = elsewhere.next().await.unwrap();
    assert_eq!((fresh.event.as_str(), fresh.data["snapshot"][0]["sid"].as_str()), ("snapshot", Some("PA_2")));
}

#[actix_web::test]
async fn a_gateway_that_stops_ends_its_event_streams() {
    let gateway = TestGateway::start().await;
    let mut stream = Stream::open(&gateway, "room-a", &livekit_token("room-a"), None).await;
    stream.next().await.unwrap();

    let stopping = gateway.restart(&[]);
    let (_gateway, end) = tokio::join!(stopping, stream.next());

    assert!(end.is_none(), "{end:?}");
}

#[actix_web::test]
async fn a_stream_that_does_not_read_delays_nobody_and_gets_a_snapshot_later() {
    let gateway = TestGateway::start().await;
    let token = livekit_token("room-a");
    let mut slow = Stream::open(&gateway, "room-a", &token, None).await;
    let mut quick = Stream::open(&gateway, "room-a", &token, None).await;
    assert_eq!(quick.next().await.unwrap().event, "snapshot");

    // More than the queue of a stream and the buffers of a connection hold.
    let happening = async {
        for n in 0..400_i32 {
            let mut joined = event("participant_joined", &format!("EV_{n}"), "room-a", &format!("PA_{n}"));
            joined["participant"]["metadata"] = Value::from("x".repeat(20_000));
            webhook(&gateway, "/api/livekit/webhook", &joined).await;
            let left = event("participant_left", &format!("EV_{n}_left"), "room-a", &format!("PA_{}", n - 1));
            webhook(&gateway, "/api/livekit/webhook", &left).await;
        }
        let last = event("participant_joined", "EV_last", "room-a", "PA_last");
        webhook(&gateway, "/api/livekit/webhook", &last).await;
    };
    let is_last = |told: &StreamEvent| told.data.to_string().contains("PA_last");
    let reading = async {
        for version in 1.. {
            let told = quick.next().await.unwrap();
            assert_eq!((told.event.as_str(), told.data["version"].as_u64()), ("diff", Some(version)));
            if is_last(&told) {
                return told;
            }
        }
        unreachable!("versions do not end")
    };
    let (quickly, ()) = tokio::join!(reading, happening);

    let resynchronised = loop {
        let told = slow.next().await.unwrap();
        if is_last(&told) {
            break told;
        }
    };
    assert_eq!((resynchronised.event.as_str(), &resynchronised.id), ("snapshot", &quickly.id));
    assert_eq!(resynchronised.data["snapshot"].as_array().unwrap().len(), 2);
}

#[actix_web::test]
async fn participants_are_listed_for_members_the_owner_of_the_session_and_a_backend() {
    let gateway = TestGateway::with(&[("API_KEYS", BACKEND)]).await;
    let body = json!({"user_id": "ann"});
    let create = gateway.http.post(format!("{}/api/sessions", gateway.url)).bearer_auth(BACKEND).json(&body);
    let session = answer(create).await.1;
    let room = session["room_name"].as_str().unwrap();
    webhook(
        &gateway,
        "/api/livekit/webhook",
        &json!({"event": "room_started", "id": "EV_0", "room": {"name": room}}),
    )
    .await;
    let status = async |room: &str, token: &str| {
        gateway.get(&format!("/api/livekit/participants?room={room}&token={token}")).await
    };
    let own = session["control_token"].as_str().unwrap();
    let livekits = session["access_token"].as_str().unwrap();

    for token in [BACKEND, own, livekits, &livekit_token(room)] {
        assert_eq!(status(room, token).await, (200, json!([])));
    }
    for (token, code) in [(livekit_token("room-b").as_str(), "FORBIDDEN"), ("nonsense", "INVALID_TOKEN")] {
        assert_eq!(status(room, token).await.1["code"], code);
    }
    assert_eq!(status("room-b", own).await.1["code"], "FORBIDDEN");
    let nobody = gateway.get(&format!("/api/livekit/participants/stream?room={room}")).await;
    assert_eq!((nobody.0, nobody.1["code"].as_str()), (401, Some("MISSING_TOKEN")));
    assert_eq!(status("%01", BACKEND).await.1["code"], "INVALID_REQUEST");
}

#[actix_web::test]
async fn a_recent_roster_is_answered_from_memory_and_an_unknown_room_needs_livekit() {
    let gateway = TestGateway::start().await;
    let began = json!({"event": "room_started", "id": "EV_0", "room": {"name": "room-a", "sid": "RM_1"}});
    webhook(&gateway, "/api/livekit/webhook", &began).await;
    webhook(&gateway, "/api/livekit/webhook", &event("participant_joined", "EV_1", "room-a", "PA_1")).await;

    let (status, participants) = gateway.get("/api/livekit/participants?room=room-a").await;
    assert_eq!((status, participants[0]["sid"].as_str()), (200, Some("PA_1")));
    let (status, problem) = gateway.get("/api/livekit/participants?room=room-b").await;
    assert_eq!((status, problem["code"].as_str()), (502, Some("MEDIA_UNAVAILABLE")));
}

#[actix_web::test]
async fn a_client_subscribes_to_another_room_only_with_a_livekit_token_for_it() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    for token in [None, Some(livekit_token("room-c")), Some("nonsense".into())] {
        glasses
            .say(&json!({"type": "subscribe:participants", "room": "room-b", "token": token}).to_string())
            .await;
        assert_eq!(glasses.error().await, "FORBIDDEN");
    }

    let token = livekit_token("room-b");
    glasses
        .say(&json!({"type": "subscribe:participants", "room": "room-b", "token": token}).to_string())
        .await;
    assert_eq!(update(&mut glasses).await.0.room.as_str(), "room-b");

    glasses.say(r#"{"type":"unsubscribe:participants","room":"room-b"}"#).await;
    glasses.say(r#"{"type":"subscribe:participants"}"#).await;
    assert_eq!(update(&mut glasses).await.0.room, glasses.session.room_name);
}

#[actix_web::test]
async fn a_webhook_that_is_too_large_gets_413() {
    let gateway = TestGateway::start().await;
    let mut joined = event("participant_joined", "EV_1", "room-a", "PA_1");
    joined["participant"]["metadata"] = Value::from("x".repeat(300_000));
    let body = joined.to_string();

    let (status, problem) = signed_webhook(&gateway, "/api/livekit/webhook", body).await;

    assert_eq!((status, problem["code"].as_str()), (413, Some("TOO_LARGE")));
}

#[actix_web::test]
async fn a_flood_of_unsigned_webhooks_is_limited_and_livekits_own_are_accepted() {
    let gateway = TestGateway::start().await;
    let forged = event("participant_joined", "EV_1", "room-a", "PA_1");
    let mut codes = Vec::new();
    for _ in 0..40 {
        codes.push(gateway.post("/api/livekit/webhook", &forged).await.0);
    }
    assert_eq!((codes.first(), codes.last()), (Some(&401), Some(&429)));

    assert_eq!(webhook(&gateway, "/api/livekit/webhook", &forged).await, 200);
}
