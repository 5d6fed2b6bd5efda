//! The consumer port: messages of clients for backends, and of backends for clients.

use serde_json::{Value, json};

use crate::{
    phone::{Phone, SETTINGS},
    support::{BACKEND, TestGateway},
};

const ANN: &str = "ann@example.org";

#[actix_web::test]
async fn a_consumer_that_attaches_later_gets_the_sessions_with_their_last_battery_and_location() {
    let gateway = TestGateway::with(SETTINGS).await;
    let mut earlier = Phone::consumer(&gateway, "").await;
    let mut phone = Phone::attach(&gateway, ANN).await;
    let session = phone.next().await["sessionId"].clone();
    for message in [
        json!({"type": "glasses_battery_update", "level": 80}),
        json!({"type": "glasses_battery_update", "level": 79, "charging": false}),
        json!({"type": "location_update", "lat": 52.5, "lng": 13.4}),
        json!({"type": "glasses_connection_state", "modelName": "G1", "status": "CONNECTED"}),
    ] {
        phone.say(&message).await;
    }
    earlier.next_of("glasses_connection_state").await;

    let state = Phone::consumer(&gateway, "").await.next().await;

    assert_eq!((&state["type"], &state["sessionId"]), (&json!("session_state"), &session));
    assert_eq!((&state["profile"], &state["connected"]), (&json!("mentra"), &json!(true)));
    assert_eq!((&state["glassesBattery"]["level"], &state["location"]["lat"]), (&json!(79), &json!(52.5)));
    assert_eq!(state["glasses"]["status"], "CONNECTED");
}

#[actix_web::test]
async fn a_consumer_of_one_user_gets_messages_transcripts_and_presence_of_that_user_only() {
    let gateway = TestGateway::with(SETTINGS).await;
    let mut backend = Phone::consumer(&gateway, &format!("?user={ANN}")).await;
    let mut bob = Phone::attach(&gateway, "bob@example.org").await;
    bob.say(&json!({"type": "button_press"})).await;
    bob.until_pong().await;

    let mut phone = Phone::attach(&gateway, ANN).await;
    let came = backend.next().await;
    assert_eq!(
        (&came["userId"], &came["connected"], &came["ended"]),
        (&json!(ANN), &json!(true), &json!(false))
    );
    phone.say(&json!({"type": "local_transcription", "text": "Good", "isFinal": false})).await;
    let transcript = backend.next_of("data_stream").await;
    assert_eq!(
        (&transcript["userId"], &transcript["streamType"]),
        (&json!(ANN), &json!("transcription:en-US"))
    );
    assert_eq!(transcript["data"]["text"], "Good");
    phone.close().await;
    assert_eq!(backend.next_of("session_state").await["connected"], false);
    let path = format!("/api/sessions/{}", came["sessionId"].as_str().unwrap());
    assert_eq!(gateway.delete(&path).await.0, 200);
    assert_eq!(backend.next_of("session_state").await["ended"], true);
}

#[actix_web::test]
async fn a_consumer_sends_to_clients_of_both_profiles_and_gets_the_result() {
    let gateway = TestGateway::with(SETTINGS).await;
    let mut backend = Phone::consumer(&gateway, "").await;
    let mut phone = Phone::attach(&gateway, ANN).await;
    let mut sessions = vec![phone.next().await["sessionId"].clone()];
    let edge = gateway.session("bob").await;
    let target = format!("/v1/ws?token={}", edge.control_token);
    let mut edge = Phone::open(&gateway, &target, &[]).await;
    edge.say(&json!({"type": "connection_init"})).await;
    sessions.push(edge.next().await["sessionId"].clone());

    for (client, session) in [&mut phone, &mut edge].into_iter().zip(&sessions) {
        let message = json!({"type": "rgb_led_control", "requestId": "r1", "action": "on"});
        backend.say(&json!({"type": "send", "id": 7, "sessionId": session, "message": message})).await;
        assert_eq!(backend.next_of("sent").await["replyTo"], 7);
        assert_eq!(client.next_of("rgb_led_control").await, message);
        client.say(&json!({"type": "rgb_led_control_response", "requestId": "r1", "success": true})).await;
        assert_eq!(backend.next_of("rgb_led_control_response").await["sessionId"], *session);
        client.say(&json!({"type": "audio_play_response", "requestId": "r2", "success": true})).await;
        assert_eq!(backend.next_of("audio_play_response").await["requestId"], "r2");
    }
}

#[actix_web::test]
async fn what_a_consumer_may_not_send_is_refused_with_a_code() {
    let gateway = TestGateway::with(SETTINGS).await;
    let away = gateway.session("bob").await.session_id;
    let mut phone = Phone::attach(&gateway, ANN).await;
    let session = phone.next().await["sessionId"].clone();
    let mut backend = Phone::consumer(&gateway, &format!("?user={ANN}")).await;
    let of = |session: &Value, message: Value| json!({"type": "send", "id": "a", "sessionId": session, "message": message});
    let hello = || json!({"type": "hello"});

    for (said, code) in [
        (of(&session, json!({"type": "connection_ack"})), "UNSUPPORTED"),
        (of(&session, json!({"text": "no type"})), "INVALID_REQUEST"),
        (of(&session, json!("hello")), "MALFORMED_MESSAGE"),
        (of(&json!("nonsense"), hello()), "MALFORMED_MESSAGE"),
        (of(&json!("018f0000-0000-7000-8000-000000000000"), hello()), "SESSION_NOT_FOUND"),
        (of(&json!(away), hello()), "FORBIDDEN"),
        (json!({"type": "dance", "id": "a"}), "MALFORMED_MESSAGE"),
    ] {
        backend.say(&said).await;
        let error = backend.next_of("error").await;
        assert_eq!((&error["code"], &error["replyTo"]), (&json!(code), &json!("a")), "{said}");
    }
    backend.say(&of(&session, json!({"type": "hello", "text": "x".repeat(70_000)}))).await;
    assert_eq!(backend.next_of("error").await["code"], "TOO_LARGE");
    phone.close().await;
    while backend.next_of("session_state").await["connected"] != false {}
    backend.say(&of(&session, hello())).await;
    assert_eq!(backend.next_of("error").await["code"], "SESSION_ERROR");
}

#[actix_web::test]
async fn the_consumer_port_needs_an_api_key() {
    let gateway =
        TestGateway::with(&[SETTINGS, &[("API_KEYS", BACKEND), ("HOST", "127.0.0.1")]].concat()).await;
    let users = format!("Bearer {}", crate::phone::core_token(ANN));
    for (headers, status) in
        [(vec![], 401), (vec![("x-api-key", "guess")], 401), (vec![("authorization", users.as_str())], 403)]
    {
        assert_eq!(Phone::refused(&gateway, "/api/consumer/ws", &headers).await.status(), status);
    }
    Phone::open(&gateway, "/api/consumer/ws", &[("x-api-key", BACKEND)]).await;
}

#[actix_web::test]
async fn a_gateway_that_stops_closes_its_consumers_with_1012() {
    let gateway = TestGateway::start().await;
    let mut backend = Phone::consumer(&gateway, "").await;

    let (_, code) = tokio::join!(gateway.restart(&[]), backend.closed());

    assert_eq!(code, 1012);
}
