//! Tokens are renewed before they end: on an open control channel, and over REST.

use jsonwebtoken::{EncodingKey, Header};
use june_edge::protocol::{ToClient, edge_v1::from_client::ConnectionInit};
use serde_json::{Value, json};

use crate::support::{Glasses, TestGateway};

/// A user's own token.
fn users_token(user: &str, expires_in_s: u64) -> String {
    let claims = json!({"sub": user, "exp": june_edge::clock::unix_s() + expires_in_s});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(b"users")).unwrap()
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
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", "users")]).await;
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
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", "users")]).await;
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
    let gateway = TestGateway::with(&[("API_KEYS", "backend"), ("HOST", "127.0.0.1")]).await;
    let created = |user: &str| {
        let request = gateway.http.post(format!("{}/api/sessions", gateway.url)).bearer_auth("backend");
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
