//! Tokens are renewed before they end: on an open control channel, and over REST.

use jsonwebtoken::{EncodingKey, Header};
use june_edge::protocol::{ToClient, edge_v1::from_client::ConnectionInit};
use serde_json::{Value, json};

use crate::support::{BACKEND, Glasses, TestGateway, USERS_SECRET};

/// A user's own token.
fn users_token(user: &str, expires_in_s: u64) -> String {
    let claims = json!({"sub": user, "exp": june_edge::clock::unix_s() + expires_in_s});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(USERS_SECRET.as_bytes()))
        .unwrap()
}

/// Attaches to a new session of the user's with another token than the session's own.
async fn attach_with(gateway: &TestGateway, user: &str, token: String) -> Glasses {
    let mut session = gateway.session(user).await;
    session.control_token = token;
    Glasses::attach(session, ConnectionInit::default()).await.unwrap()
}

/// The next message that is about tokens, or an error.
async fn answer(glasses: &mut Glasses) -> Value {
    glasses
        .wait_for(|message| match message {
            ToClient::ControlToken { .. }
            | ToClient::TokenExpiring { .. }
            | ToClient::TokenRenewed { .. }
            | ToClient::Error { .. } => Some(serde_json::to_value(message).unwrap()),
            _ => None,
        })
        .await
}

async fn renew(glasses: &mut Glasses, request: &Value) -> Value {
    glasses.say(&request.to_string()).await;
    answer(glasses).await
}

#[actix_web::test]
async fn a_client_renews_its_control_token_on_the_channel_and_reconnects_with_it() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    let before = june_edge::clock::unix_s();

    glasses.say(r#"{"type":"renew_token","id":"7"}"#).await;
    let renewed = answer(&mut glasses).await;

    assert_eq!(renewed["type"], "control_token");
    let token = renewed["controlToken"].as_str().unwrap();
    assert_ne!(token, glasses.session.control_token);
    assert!(renewed["expiresAt"].as_u64().unwrap() >= before + 3600, "{renewed}");
    let mut session = glasses.session.clone();
    session.control_token = token.to_owned();
    let again = Glasses::attach(session, ConnectionInit::default()).await.unwrap();
    assert_eq!(again.ack.session_id, glasses.ack.session_id);
}

#[actix_web::test]
async fn a_token_is_renewed_once_a_second_at_most() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    glasses.say(r#"{"type":"renew_token"}"#).await;
    glasses.say(r#"{"type":"renew_token","id":"again"}"#).await;

    assert_eq!(answer(&mut glasses).await["type"], "control_token");
    let refused = answer(&mut glasses).await;

    assert_eq!((&refused["code"], &refused["replyTo"]), (&json!("RATE_LIMITED"), &json!("again")));
}

#[actix_web::test]
async fn a_user_whose_own_token_ends_soon_is_told_so_and_brings_another_one() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    // It is accepted for 5 s more, because clocks differ.
    let mut glasses = attach_with(&gateway, "ann", users_token("ann", 0)).await;

    let expiring = answer(&mut glasses).await;
    assert_eq!(expiring["type"], "token_expiring");

    let fresh = json!({"type": "renew_token", "id": "7", "token": users_token("ann", 600)});
    let renewed = renew(&mut glasses, &fresh).await;

    assert_eq!((&renewed["type"], &renewed["replyTo"]), (&json!("token_renewed"), &json!("7")));
    assert!(renewed["expiresAt"].as_u64().unwrap() > expiring["expiresAt"].as_u64().unwrap() + 500);
    glasses.ping().await;
}

#[actix_web::test]
async fn a_token_that_does_not_fit_is_refused_and_the_channel_stays_open() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    let bobs = gateway.session("bob").await.control_token;

    for (token, code) in [
        (Some(users_token("bob", 600)), "FORBIDDEN"),
        (Some(bobs), "FORBIDDEN"),
        (Some("garbage".to_owned()), "INVALID_TOKEN"),
        (None, "FORBIDDEN"),
    ] {
        let mut glasses = attach_with(&gateway, "ann", users_token("ann", 600)).await;
        let request = json!({"type": "renew_token", "id": code, "token": token});
        let refused = renew(&mut glasses, &request).await;
        assert_eq!((&refused["code"], &refused["replyTo"]), (&json!(code), &json!(code)), "{request}");
        glasses.ping().await;
    }
}

#[actix_web::test]
async fn a_control_token_is_renewed_over_rest_by_its_holder_alone() {
    let gateway = TestGateway::with(&[("API_KEYS", BACKEND), ("HOST", "127.0.0.1")]).await;
    let created = |user: &str| {
        let request = gateway.http.post(format!("{}/api/sessions", gateway.url)).bearer_auth(BACKEND);
        crate::support::answer(request.json(&json!({"user_id": user})))
    };
    let (ann, bob) = (created("ann").await.1, created("bob").await.1);
    let path = format!("{}/api/sessions/{}/control-token", gateway.url, ann["session_id"].as_str().unwrap());
    let renewed =
        |token: &Value| crate::support::answer(gateway.http.post(&path).bearer_auth(token.as_str().unwrap()));

    let (status, fresh) = renewed(&ann["control_token"]).await;

    assert_eq!((status, &fresh["control_url"]), (200, &ann["control_url"]), "{fresh}");
    assert_ne!(fresh["control_token"], ann["control_token"]);
    let expires_at = |object: &Value| object["control_token_expires_at"].as_u64().unwrap();
    assert!(expires_at(&fresh) >= expires_at(&ann));
    let mut session: june_client::SessionInfo = serde_json::from_value(ann.clone()).unwrap();
    session.control_token = fresh["control_token"].as_str().unwrap().to_owned();
    Glasses::attach(session, ConnectionInit::default()).await.unwrap();
    let (status, refused) = renewed(&bob["control_token"]).await;
    assert_eq!((status, refused["code"].as_str()), (403, Some("FORBIDDEN")));
    assert_eq!(renewed(&json!("garbage")).await.0, 401);
}

/// When everything ends that a session's routes give to this holder of a token.
async fn ends(gateway: &TestGateway, id: &str, room: &str, token: Option<&str>) -> Vec<(&'static str, u64)> {
    let path = format!("{}/api/sessions/{id}", gateway.url);
    let body = json!({"session_id": id, "guest_name": "Gus", "room": room});
    let http = &gateway.http;
    let stream_token = format!("{}/api/livekit/participants/stream-token", gateway.url);
    let mut ends = Vec::new();
    for (what, request, field) in [
        ("shown", http.get(&path), "control_token_expires_at"),
        ("shown for LiveKit", http.get(&path), "access_token_expires_at"),
        ("token", http.post(format!("{path}/token")), "control_token_expires_at"),
        ("control-token", http.post(format!("{path}/control-token")), "control_token_expires_at"),
        ("guest-token", http.post(format!("{path}/guest-token")), "access_token_expires_at"),
        ("stream-token", http.post(stream_token), "expires_at"),
    ] {
        let request =
            token.into_iter().fold(request.json(&body), |request, token| request.bearer_auth(token));
        let (status, answer) = crate::support::answer(request).await;
        assert_eq!(status, 200, "{what}: {answer}");
        ends.push((what, answer[field].as_u64().unwrap()));
    }
    ends
}

#[actix_web::test]
async fn nothing_that_is_issued_on_a_users_own_token_outlives_it() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    let end = june_edge::clock::unix_s() + 90;
    let own = users_token("ann", 90);
    let create = gateway.http.post(format!("{}/api/sessions", gateway.url)).bearer_auth(&own);
    let (status, made) = crate::support::answer(create.json(&json!({"user_id": "ann"}))).await;
    assert_eq!(status, 201, "{made}");
    assert!(made["control_token_expires_at"].as_u64().unwrap() <= end + 1, "{made}");
    let (id, room) = (made["session_id"].as_str().unwrap(), made["room_name"].as_str().unwrap());
    let control_token = made["control_token"].as_str().unwrap();

    for (by, token) in [("own token", own.as_str()), ("control token", control_token)] {
        for (what, ends) in ends(&gateway, id, room, Some(token)).await {
            assert!(ends <= end + 1, "{what} by {by}");
        }
    }

    let session: june_client::SessionInfo = serde_json::from_value(made.clone()).unwrap();
    let mut glasses = Glasses::attach(session, ConnectionInit::default()).await.unwrap();
    assert!(glasses.ack.livekit.as_ref().unwrap().expires_at <= end + 1, "connection_ack");
    glasses.say(r#"{"type":"livekit_init","mode":"publish"}"#).await;
    let info = glasses.wait_for(|message| match message {
        ToClient::LivekitInfo(info) => Some(info.expires_at),
        _ => None,
    });
    assert!(info.await <= end + 1, "livekit_info");
    let refused = renew(&mut glasses, &json!({"type": "renew_token", "id": "7"})).await;
    assert_eq!((&refused["code"], &refused["replyTo"]), (&json!("FORBIDDEN"), &json!("7")));
}

#[actix_web::test]
async fn without_a_users_own_token_renewals_end_with_the_sessions_maximum_age() {
    let gateway = TestGateway::with(&[("SESSION_MAX_AGE_MS", "90000")]).await;
    let end = june_edge::clock::unix_s() + 90;
    let session = gateway.session("ann").await;
    let (id, room) = (session.session_id.to_string(), session.room_name.to_string());

    for token in [None, Some(session.control_token.as_str())] {
        for (what, ends) in ends(&gateway, &id, &room, token).await {
            // By nobody's right but the gateway's, a stream is for as long as its token.
            assert!(ends <= end + 1 || (what == "stream-token" && token.is_none()), "{what}");
        }
    }
    let mut glasses = Glasses::attach(session, ConnectionInit::default()).await.unwrap();
    let refused = renew(&mut glasses, &json!({"type": "renew_token", "id": "7"})).await;
    assert_eq!(refused["code"], "FORBIDDEN");

    let gateway = gateway.restart(&[("SESSION_MAX_AGE_MS", "1")]).await;
    for renewal in ["token", "control-token"] {
        let (status, problem) = gateway.post(&format!("/api/sessions/{id}/{renewal}"), &Value::Null).await;
        assert_eq!((status, problem["code"].as_str()), (404, Some("SESSION_NOT_FOUND")), "{renewal}");
    }
}
