//! Sessions, connections and tokens.

use std::collections::HashMap;

use futures::{FutureExt, future::LocalBoxFuture};
use june_client::{ClientError, SessionInfo};
use june_edge::protocol::edge_v1::from_client::ConnectionInit;
use serde_json::json;

use super::{Answer, KEYS, answer, refusals, token};
use crate::support::{BACKEND, Glasses, TestGateway, key, soon, user_id};

async fn create(gateway: &TestGateway, user: &str) -> Answer {
    let request = gateway.http.post(format!("{}/api/sessions", gateway.url)).bearer_auth(token(user));
    answer(request.json(&json!({"user_id": user}))).await
}

async fn attach(session: SessionInfo) -> Result<Glasses, String> {
    match soon(Glasses::attach(session, ConnectionInit::default())).await {
        Ok(glasses) => Ok(glasses),
        Err(ClientError::Refused { code, .. }) => Err(code),
        Err(error) => panic!("{error}"),
    }
}

#[actix_web::test]
async fn a_user_who_creates_many_sessions_is_slowed_and_anothers_session_stays() {
    let gateway = TestGateway::with(&KEYS).await;
    let bobs = create(&gateway, "bob").await;
    let before = refusals(&gateway, "creations_by_user").await;

    let mut refused = None;
    for _ in 0..70 {
        let created = create(&gateway, "ann").await;
        if created.status != 201 {
            refused = Some(created);
            break;
        }
    }

    let refused = refused.expect("a limit");
    assert_eq!((refused.status, refused.body["code"].as_str()), (429, Some("RATE_LIMITED")));
    assert_eq!(refused.retry_after, Some(1));
    assert!(refusals(&gateway, "creations_by_user").await > before);
    assert_eq!(create(&gateway, "bob").await.status, 201);
    let path = format!("{}/api/sessions/{}", gateway.url, bobs.body["session_id"].as_str().unwrap());
    assert_eq!(answer(gateway.http.get(&path).bearer_auth(token("bob"))).await.status, 200);
}

#[actix_web::test]
async fn a_backend_creates_as_many_sessions_as_it_has_users() {
    let gateway = TestGateway::with(&KEYS).await;
    let backend = june_client::Gateway::new(&gateway.url, key(BACKEND));

    let ann = user_id("ann");
    let created = futures::future::join_all((0..100).map(|_| backend.create_session(&ann))).await;

    assert!(created.iter().all(Result::is_ok));
}

#[actix_web::test]
async fn a_backends_key_can_be_limited() {
    let settings = [&KEYS[..], &[("SESSIONS_PER_MINUTE_BY_KEY", "2")]].concat();
    let gateway = TestGateway::with(&settings).await;
    let create = || {
        let request = gateway.http.post(format!("{}/api/sessions", gateway.url)).header("X-API-Key", BACKEND);
        answer(request.json(&json!({"user_id": "ann"})))
    };

    assert_eq!([create().await.status, create().await.status, create().await.status], [201, 201, 429]);
}

#[actix_web::test]
async fn a_gateway_that_is_full_admits_nobody_until_a_session_ends() {
    let gateway = TestGateway::with(&[("MAX_SESSIONS", "1")]).await;
    let mut ann = gateway.glasses("ann").await;
    let bobs = gateway.session("bob").await;

    assert_eq!(attach(bobs.clone()).await.err().as_deref(), Some("OVERLOADED"));
    let (_, health) = gateway.get("/health").await;
    assert_eq!(health["sessions"], 1, "nothing was started for who was refused");

    ann.say(r#"{"type":"goodbye"}"#).await;
    ann.closed().await;
    let bob = soon(async {
        loop {
            if let Ok(bob) = attach(bobs.clone()).await {
                return bob;
            }
        }
    })
    .await;
    assert_eq!(bob.ack.session_id, bobs.session_id, "the session that was refused before");
}

#[actix_web::test]
async fn clients_that_come_at_once_are_no_more_sessions_than_there_may_be() {
    let gateway = TestGateway::with(&[("MAX_SESSIONS", "4")]).await;
    let sessions =
        futures::future::join_all((0..12).map(async |n| gateway.session(&format!("u{n}")).await)).await;

    let attached = futures::future::join_all(sessions.into_iter().map(attach)).await;

    assert_eq!(attached.iter().filter(|attached| attached.is_ok()).count(), 4);
}

#[actix_web::test]
async fn one_users_sessions_leave_places_for_others() {
    let gateway = TestGateway::with(&[("MAX_SESSIONS", "3"), ("MAX_SESSIONS_BY_USER", "2")]).await;
    let _anns = [gateway.glasses("ann").await, gateway.glasses("ann").await];

    let refused = attach(gateway.session("ann").await).await.err();

    assert_eq!(refused.as_deref(), Some("RATE_LIMITED"));
    assert!(attach(gateway.session("bob").await).await.is_ok());
}

#[actix_web::test]
async fn one_users_event_streams_leave_places_for_others() {
    let settings = [&KEYS[..], &[("MAX_STREAMS_BY_USER", "2"), ("MAX_STREAMS", "3")]].concat();
    let gateway = TestGateway::with(&settings).await;
    let mut rooms = HashMap::new();
    for user in ["ann", "bob", "eve"] {
        let session = create(&gateway, user).await;
        rooms.insert(user, session.body["room_name"].as_str().unwrap().to_owned());
    }
    let open = async |user: &str| {
        let url = format!("{}/api/livekit/participants/stream", gateway.url);
        let request = gateway.http.get(url).query(&[("room", &rooms[user])]);
        request.bearer_auth(token(user)).send().await.unwrap()
    };
    let anns = [open("ann").await, open("ann").await];
    assert!(anns.iter().all(|stream| stream.status() == 200));

    let refused = open("ann").await;
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    let bobs = open("bob").await;
    assert_eq!(bobs.status(), 200);
    let full = open("eve").await;
    assert_eq!((full.status().as_u16(), full.headers().contains_key("retry-after")), (503, true));

    drop(bobs);
    soon(async { while open("eve").await.status() != 200 {} }).await;
}

#[actix_web::test]
async fn consumers_are_only_so_many() {
    let gateway = TestGateway::with(&[("MAX_CONSUMERS", "1")]).await;
    let url = format!("{}/api/consumer/ws", gateway.url.replacen("http", "ws", 1));
    let first = tokio_tungstenite::connect_async(&url).await.unwrap();

    let refused = tokio_tungstenite::connect_async(&url).await.unwrap_err();

    let tokio_tungstenite::tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
    assert_eq!(response.status().as_u16(), 503);
    drop(first);
    soon(async { while Box::pin(tokio_tungstenite::connect_async(&url)).await.is_err() {} }).await;
}

#[actix_web::test]
async fn a_session_gets_only_so_many_tokens_and_another_session_its_own() {
    let gateway = TestGateway::start().await;
    let (ann, bob) = (gateway.session("ann").await, gateway.session("bob").await);
    for (path, body) in [
        ("control-token", json!({})),
        ("guest-token", json!({"session_id": ann.session_id, "guest_name": "Eve"})),
    ] {
        let ask = |session: &SessionInfo, body: &serde_json::Value| {
            let url = format!("{}/api/sessions/{}/{path}", gateway.url, session.session_id);
            answer(gateway.http.post(url).json(body))
        };
        let mut asked = 0;
        let refused = loop {
            let answer = ask(&ann, &body).await;
            asked += 1;
            if answer.status != 200 {
                break answer;
            }
            assert!(asked < 200, "{path} has no limit");
        };

        assert_eq!((refused.status, refused.retry_after), (429, Some(1)), "{path}");
        let of_bob = json!({"session_id": bob.session_id, "guest_name": "Eve"});
        assert_eq!(ask(&bob, &of_bob).await.status, 200, "{path}");
    }
}

#[actix_web::test]
async fn a_user_who_asks_for_tokens_again_and_again_is_slowed_and_a_backend_is_not() {
    let gateway = TestGateway::with(&KEYS).await;
    let session = create(&gateway, "ann").await;
    let url = |path: &str| format!("{}/api/{path}", gateway.url);
    let session_url = url(&format!("sessions/{}", session.body["session_id"].as_str().unwrap()));
    let room = json!({"room": session.body["room_name"]});
    let show =
        |credential: &str| answer(gateway.http.get(&session_url).bearer_auth(credential)).boxed_local();
    let stream_token = |credential: &str| {
        let request = gateway.http.post(url("livekit/participants/stream-token"));
        answer(request.bearer_auth(credential).json(&room)).boxed_local()
    };
    let until_refused = async |ask: &dyn Fn(&str) -> LocalBoxFuture<'static, Answer>| {
        for _ in 0..200 {
            let answer = ask(&token("ann")).await;
            if answer.status != 200 {
                return (answer.status, answer.retry_after);
            }
        }
        panic!("there is no limit");
    };

    assert_eq!(until_refused(&show).await, (429, Some(1)));
    assert_eq!(until_refused(&stream_token).await, (429, Some(1)));
    assert_eq!((show(BACKEND).await.status, stream_token(BACKEND).await.status), (200, 200));
}
