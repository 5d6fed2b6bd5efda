//! Sessions and tokens over REST. LiveKit's address is dead throughout: making a session and renewing a
//! token ask nothing of it.

use jsonwebtoken::{EncodingKey, Header};
use june_client::{Channel, ClientError, Gateway as Api};
use livekit_api::access_token::TokenVerifier;
use serde_json::{Value, json};

use crate::support::{BACKEND, LIVEKIT_SECRET, TestGateway, USERS_SECRET, answer, key, user_id};

#[actix_web::test]
async fn a_session_is_made_without_livekit() {
    let gateway = TestGateway::start().await;

    let (status, session) = gateway.post("/api/sessions", &json!({"user_id": "john_doe", "future": 1})).await;

    assert_eq!(status, 201);
    assert_eq!(session["status"], "active");
    assert_eq!(session["livekit_url"], "ws://127.0.0.1:9");
    let room = session["room_name"].as_str().unwrap();
    assert!(room.starts_with("room-john_doe-") && room.len() == "room-john_doe-".len() + 6, "{room}");
    assert!(session["control_url"].as_str().unwrap().ends_with("/v1/ws"));
    let token = session["access_token"].as_str().unwrap();
    let claims = TokenVerifier::with_api_key("devkey", LIVEKIT_SECRET).verify(token).unwrap();
    assert_eq!((claims.sub.as_str(), claims.video.room.as_str()), ("john_doe", room));
}

#[actix_web::test]
async fn a_session_is_shown_with_a_fresh_token_each_time() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let path = format!("/api/sessions/{}", session.session_id);

    let (status, shown) = gateway.get(&path).await;
    let (_, renewed) = gateway.post(&format!("{path}/token"), &Value::Null).await;

    assert_eq!(status, 200);
    assert_eq!(shown["room_name"], session.room_name.as_str());
    let tokens =
        [session.access_token.as_deref(), shown["access_token"].as_str(), renewed["access_token"].as_str()];
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens.iter().all(Option::is_some));
}

#[actix_web::test]
async fn an_ended_session_is_gone() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    let path = format!("/api/sessions/{}", glasses.ack.session_id);

    let (status, ended) = gateway.delete(&path).await;

    assert_eq!((status, ended["status"].as_str()), (200, Some("ended")));
    assert_eq!(ended["room_deleted"], false, "LiveKit is out of reach, and that is said");
    assert_eq!(glasses.closed().await.0, 1000);
    for request in [
        gateway.http.get(format!("{}{path}", gateway.url)),
        gateway.http.delete(format!("{}{path}", gateway.url)),
    ] {
        let (status, problem) = answer(request).await;
        assert_eq!((status, problem["code"].as_str()), (404, Some("SESSION_NOT_FOUND")));
    }
}

#[actix_web::test]
async fn bad_requests_are_answered_with_a_problem_and_a_code() {
    let gateway = TestGateway::start().await;

    for body in [
        json!({}),
        json!({"user_id": ""}),
        json!({"user_id": 7}),
        json!({"user_id": "x".repeat(300)}),
        json!([]),
    ] {
        let (status, problem) = gateway.post("/api/sessions", &body).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("INVALID_REQUEST")), "{body}");
    }
    let (status, problem) = gateway.post("/api/sessions", &json!({"user_id": "x".repeat(100_000)})).await;
    assert_eq!((status, problem["code"].as_str()), (413, Some("TOO_LARGE")));
    assert_eq!(gateway.get("/api/sessions/nonsense").await.0, 400);
    assert_eq!(gateway.get("/api/sessions/018f0000-0000-7000-8000-000000000000").await.0, 404);
    let (status, problem) = gateway.get("/nowhere").await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("NOT_FOUND")));
}

#[actix_web::test]
async fn participants_need_livekit_and_say_what_still_works() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;

    let (status, problem) = gateway.get(&format!("/api/sessions/{}/participants", session.session_id)).await;

    assert_eq!((status, problem["code"].as_str()), (502, Some("MEDIA_UNAVAILABLE")));
    assert!(problem["detail"].as_str().unwrap().contains("tokens still work"));
}

#[actix_web::test]
async fn with_keys_configured_nobody_gets_in_without_one() {
    let gateway =
        TestGateway::with(&[("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("AUTH_JWT_SECRET", USERS_SECRET)])
            .await;
    let backend = Api::new(&gateway.url, key(BACKEND));
    let ann = backend.create_session(&user_id("ann")).await.unwrap();
    let bob = backend.create_session(&user_id("bob")).await.unwrap();
    let path = format!("{}/api/sessions/{}", gateway.url, ann.session_id);
    let exp = june_edge::clock::unix_s() + 60;
    let users_token = |user: &str| {
        let claims = json!({"sub": user, "exp": exp});
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(USERS_SECRET.as_bytes()))
            .unwrap()
    };

    let (status, problem) = gateway.post("/api/sessions", &json!({"user_id": "ann"})).await;
    assert_eq!((status, problem["code"].as_str()), (401, Some("MISSING_TOKEN")));
    let refused = Api::new(&gateway.url, key("guess")).create_session(&user_id("ann")).await;
    assert!(matches!(&refused, Err(ClientError::Refused { code, .. }) if code == "INVALID_TOKEN"));

    let shown = |token: String| answer(gateway.http.get(&path).bearer_auth(token));
    assert_eq!(shown(BACKEND.into()).await.0, 200);
    assert_eq!(shown(ann.control_token.clone()).await.0, 200);
    assert_eq!(shown(users_token("ann")).await.0, 200);
    assert_eq!(shown(bob.control_token.clone()).await.0, 403);
    assert_eq!(shown(users_token("bob")).await.0, 403);
    assert_eq!(answer(gateway.http.get(&path).header("X-API-Key", BACKEND)).await.0, 200);
    assert_eq!(answer(gateway.http.get(&path).header("X-API-Key", "guess")).await.0, 401);

    let own = gateway.http.post(format!("{}/api/sessions", gateway.url)).json(&json!({"user_id": "ann"}));
    assert_eq!(answer(own.bearer_auth(users_token("ann"))).await.0, 201);
    let others = gateway.http.post(format!("{}/api/sessions", gateway.url)).json(&json!({"user_id": "bob"}));
    assert_eq!(answer(others.bearer_auth(users_token("ann"))).await.0, 403);

    let as_user = Channel::open_unattached(&gateway.ws_url(), BACKEND).await;
    assert!(as_user.is_err(), "an API key identifies no user");
}

#[actix_web::test]
async fn operators_see_how_the_gateway_is() {
    let gateway = TestGateway::start().await;
    let _glasses = gateway.glasses("ann").await;

    assert_eq!(gateway.get("/livez").await.0, 200);
    assert_eq!(gateway.get("/readyz").await.0, 200);
    let (_, health) = gateway.get("/health").await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["sessions"], 1);
    let parts = health["parts"].as_array().unwrap();
    let roles: Vec<(&str, &str)> =
        parts.iter().map(|part| (part["part"].as_str().unwrap(), part["role"].as_str().unwrap())).collect();
    assert_eq!(
        roles,
        [
            ("livekit", "livekit"),
            ("vad", "vad"),
            ("turn", "turn"),
            ("transcriber", "stt"),
            ("thinker", "llm"),
            ("speaker", "tts"),
            ("store", "store"),
            ("memory", "memory")
        ]
    );
    let metrics =
        gateway.http.get(format!("{}/metrics", gateway.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("# TYPE june_sessions gauge"), "{metrics}");
}

#[actix_web::test]
async fn the_talk_page_is_served() {
    let gateway = TestGateway::start().await;
    for (path, kind) in
        [("/", "text/html"), ("/static/talk.js", "text/javascript"), ("/static/talk.css", "text/css")]
    {
        let response = gateway.http.get(format!("{}{path}", gateway.url)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with(kind), "{path}");
    }
    assert_eq!(gateway.get("/static/../Cargo.toml").await.0, 404);
    assert_eq!(gateway.get("/vendor/livekit-client.js").await.0, 404, "not installed here");
}

#[actix_web::test]
async fn a_session_whose_record_was_lost_is_made_again_from_its_token() {
    let secret = [("CONTROL_TOKEN_SECRET", "the same secret on both of them, 32 bytes")];
    let lost = TestGateway::with(&secret).await.session("ann").await;
    let gateway = TestGateway::with(&secret).await;
    let attach = async || Channel::open(&gateway.ws_url(), &lost.control_token, Default::default()).await;

    let (_, ack) = attach().await.unwrap();

    assert_eq!(ack.session_id, lost.session_id);
    assert_eq!(ack.livekit.unwrap().room_name, lost.room_name);
    let (status, _) = gateway.delete(&format!("/api/sessions/{}", lost.session_id)).await;
    assert_eq!(status, 200);
    assert!(attach().await.is_err(), "one that was ended stays ended");
}
