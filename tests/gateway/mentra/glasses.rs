//! MentraOS devices on `/glasses-ws` (docs/MENTRA.md).

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{
    phone::{Phone, SECRET, SETTINGS, core_token},
    support::{TestGateway, answer, soon},
};

const ANN: &str = "ann@example.org";

async fn gateway() -> TestGateway {
    TestGateway::with(SETTINGS).await
}

fn types(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["type"].as_str().unwrap()).collect()
}

/// tests/e2e checks that its samples arrive complete.
#[actix_web::test]
async fn a_phone_of_the_first_generation_is_acknowledged_twice_and_asked_for_its_microphone_each_time() {
    let gateway = gateway().await;
    let token = format!("Bearer {}", core_token(ANN));
    let mut phone = Phone::open(&gateway, "/glasses-ws", &[("authorization", &token)]).await;

    let ack = phone.next().await;
    assert_eq!(ack["type"], "connection_ack");
    assert_eq!(ack["userSession"]["userId"], ANN);
    assert_eq!((ack.get("livekit"), ack.get("epoch")), (None, None));
    let microphone = phone.next_of("microphone_state_change").await;
    assert_eq!(
        (&microphone["isMicrophoneEnabled"], &microphone["requiredData"]),
        (&json!(true), &json!(["pcm"]))
    );
    phone.say(&json!({"type": "connection_init", "coreToken": "whatever"})).await;
    let again = phone.next_of("connection_ack").await;
    assert_eq!(again["sessionId"], ack["sessionId"]);
    phone.next_of("microphone_state_change").await;

    for chunk in vec![1; 4096].chunks(1365) {
        phone.raw(Message::Binary(chunk.to_vec().into())).await;
    }
    phone.raw(Message::Binary(Vec::new().into())).await;
    phone.raw(Message::text("{nonsense")).await;
    phone.raw(Message::text("[]")).await;
    let after = phone.until_pong().await;
    assert!(types(&after).iter().all(|kind| *kind == "microphone_state_change"), "{after:?}");
}

#[actix_web::test]
async fn a_token_in_the_query_is_taken_and_is_in_no_log() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data = tempfile::tempdir().unwrap();
    let mut june = Command::new(env!("CARGO_BIN_EXE_june"))
        .arg("serve")
        .env_clear()
        .envs([("JUNE_MODELS", "/nowhere/models"), ("LIVEKIT_URL", "off"), ("RUST_LOG", "trace")])
        .envs(SETTINGS.iter().copied())
        .env("PORT", port.to_string())
        .env("DATA_DIR", data.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(june.stderr.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("listening") {
        assert_ne!(log.read_line(&mut lines).unwrap(), 0, "{lines}");
    }
    // What follows is read meanwhile, so that the process is not held up by it.
    let log = std::thread::spawn(move || {
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        rest
    });

    let token = core_token(ANN);
    let url = format!("ws://127.0.0.1:{port}/glasses-ws?token={token}");
    let (mut socket, _) = Box::pin(connect_async(&url)).await.unwrap();
    let first = soon(futures::StreamExt::next(&mut socket)).await.unwrap().unwrap();
    assert!(first.to_text().unwrap().contains("connection_ack"));
    let refused = Box::pin(connect_async(format!("{url}x"))).await;
    assert!(refused.is_err());
    drop(socket);
    june.kill().unwrap();
    june.wait().unwrap();

    let log = log.join().unwrap();
    assert!(log.contains("client attached"), "{log}");
    let signature = token.rsplit('.').next().unwrap();
    assert!(!log.contains(signature), "{log}");
}

#[actix_web::test]
async fn who_has_no_good_token_is_refused_before_the_upgrade() {
    let gateway = gateway().await;
    let bad = format!("/glasses-ws?token={}x", core_token(ANN));
    for (target, code) in [("/glasses-ws", "MISSING_TOKEN"), (bad.as_str(), "INVALID_TOKEN")] {
        let response = Phone::refused(&gateway, target, &[]).await;
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
        assert_eq!((&body["type"], &body["code"]), (&json!("connection_error"), &json!(code)));
    }
}

#[actix_web::test]
async fn a_token_without_an_end_is_taken_only_where_that_is_allowed() {
    let gateway = TestGateway::with(&[("AUGMENTOS_AUTH_JWT_SECRET", SECRET)]).await;
    let target = format!("/glasses-ws?token={}", core_token(ANN));
    assert_eq!(Phone::refused(&gateway, &target, &[]).await.status(), 401);
}

#[actix_web::test]
async fn the_path_and_the_subprotocol_say_which_profile_it_is() {
    let gateway = gateway().await;
    let target = format!("/glasses-ws?token={}", core_token(ANN));

    let unknown = Phone::refused(&gateway, &target, &[("sec-websocket-protocol", "soap")]).await;
    assert_eq!(unknown.status(), 400);

    let mut edge = Phone::open(&gateway, &target, &[("sec-websocket-protocol", "soap, edge.v1")]).await;
    edge.say(&json!({"type": "connection_init"})).await;
    let ack = edge.next().await;
    assert_eq!((&ack["type"], &ack["protocol"]), (&json!("connection_ack"), &json!("edge.v1")));
}

#[actix_web::test]
async fn a_phone_that_asks_for_livekit_is_told_how_to_join_and_no_more() {
    let gateway = gateway().await;
    let target = format!("/glasses-ws?livekit=true&token={}", core_token(ANN));
    let mut phone = Phone::open(&gateway, &target, &[]).await;

    let ack = phone.next().await;

    let fields: BTreeSet<&str> = ack["livekit"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["roomName", "token", "url"]));
    phone.say(&json!({"type": "livekit_init"})).await;
    let info = phone.next_of("livekit_info").await;
    assert_eq!(info["roomName"], ack["livekit"]["roomName"]);
    assert_ne!(info["token"], ack["livekit"]["token"]);
}

/// The phone does not read, and its receive buffer is small, so that the queue fills up.
#[actix_web::test]
async fn a_ping_is_answered_ahead_of_ten_thousand_messages_that_wait() {
    const WAITING: usize = 10_000;
    let gateway = gateway().await;
    let target = format!("/glasses-ws?token={}", core_token(ANN));
    let mut phone = Phone::with_a_small_window(&gateway, &target).await;
    let session = phone.next().await["sessionId"].clone();
    phone.next_of("microphone_state_change").await;
    let mut backend = Phone::consumer(&gateway, "").await;
    for n in 0..WAITING {
        let message = json!({"type": "n", "n": n});
        backend.say(&json!({"type": "send", "id": n, "sessionId": session, "message": message})).await;
        if n % 100 == 99 {
            // What comes back is read, so that neither waits for the other.
            while backend.next_of("sent").await["replyTo"] != n {}
        }
    }

    let before = phone.until_pong().await;

    assert!(before.len() < WAITING, "the pong was the last");
    let mut n = before.iter().filter(|message| message["type"] == "n").count();
    while n < WAITING {
        assert_eq!(phone.next_of("n").await["n"], n, "and nothing is lost by it");
        n += 1;
    }
}

#[actix_web::test]
async fn a_phone_that_comes_back_and_wants_nothing_for_a_moment_keeps_its_streams_and_its_microphone() {
    let gateway = gateway().await;
    let mut phone = Phone::attach(&gateway, ANN).await;
    let all = json!({"type": "phone_subscription_update", "subscriptions": ["transcription:en-US"]});
    phone.say(&all).await;
    phone.until_pong().await;
    phone.close().await;
    let mut phone = Phone::attach(&gateway, ANN).await;
    let heard = json!({"type": "local_transcription", "text": "Good morning.", "isFinal": true});

    phone.say(&heard).await;
    phone.next_of("data_stream").await;
    phone.say(&json!({"type": "phone_subscription_update", "subscriptions": []})).await;
    phone.say(&all).await;
    phone.say(&heard).await;

    loop {
        let message = phone.next().await;
        assert_ne!(message["isMicrophoneEnabled"], false);
        if message["type"] == "data_stream" {
            let data = &message["data"];
            assert_eq!((&data["text"], &data["isFinal"]), (&json!("Good morning."), &json!(true)));
            assert_eq!((&data["provider"], &data["transcribeLanguage"]), (&json!("client"), &json!("en-US")));
            break;
        }
    }
}

#[actix_web::test]
async fn the_microphone_is_asked_for_again_after_each_reconnect_and_when_the_glasses_come() {
    let gateway = gateway().await;
    let mut phone = Phone::attach(&gateway, ANN).await;
    let session = phone.next().await["sessionId"].clone();
    phone.next_of("microphone_state_change").await;
    phone.close().await;

    let mut phone = Phone::attach(&gateway, ANN).await;
    assert_eq!(phone.next().await["sessionId"], session, "1000 is no farewell");
    assert_eq!(phone.next_of("microphone_state_change").await["isMicrophoneEnabled"], true);
    phone.say(&json!({"type": "glasses_connection_state", "modelName": "G1", "status": "CONNECTED"})).await;
    assert_eq!(phone.next_of("microphone_state_change").await["requiredData"], json!(["pcm"]));
}

#[actix_web::test]
async fn phones_of_one_user_that_take_the_session_from_each_other_are_held_back() {
    let gateway = gateway().await;
    let mut phone = Phone::attach(&gateway, ANN).await;
    phone.next_of("connection_ack").await;
    for _ in 0..3 {
        let mut newer = Phone::attach(&gateway, ANN).await;
        newer.next_of("connection_ack").await;
        assert_eq!(phone.closed().await, 1000);
        phone = newer;
    }

    let mut fifth = Phone::attach(&gateway, ANN).await;
    assert_eq!(fifth.next_of("connection_error").await["code"], "RATE_LIMITED");
    assert_eq!(fifth.closed().await, 1013);
    let target = format!("/glasses-ws?token={}", core_token(ANN));
    let sixth = Phone::refused(&gateway, &target, &[]).await;
    assert_eq!(sixth.status(), 429);
    let wait: u64 = sixth.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    Phone::attach(&gateway, "bob@example.org").await.next_of("connection_ack").await;
    phone.until_pong().await;
}

#[actix_web::test]
async fn a_type_that_nobody_knows_is_passed_on_and_seventy_kilobytes_are_refused() {
    let gateway = gateway().await;
    let mut backend = Phone::consumer(&gateway, "").await;
    let mut phone = Phone::attach(&gateway, ANN).await;
    let session = phone.next().await["sessionId"].clone();
    assert_eq!(backend.next_of("session_state").await["userId"], ANN);

    phone.say(&json!({"type": "make_coffee", "cups": 2, "userId": "bob"})).await;
    let said = backend.next_of("make_coffee").await;
    assert_eq!(said, json!({"type": "make_coffee", "cups": 2, "userId": ANN, "sessionId": session}));

    phone.say(&json!({"type": "photo_taken", "photoData": "x".repeat(70_000)})).await;
    assert_eq!(phone.next_of("connection_error").await["code"], "TOO_LARGE");
    phone.say(&json!({"type": "say", "text": "not of this profile"})).await;
    assert_eq!(backend.next().await["type"], "say");
    let after = phone.until_pong().await;
    assert!(types(&after).iter().all(|kind| *kind == "microphone_state_change"), "{after:?}");
}

#[actix_web::test]
async fn an_answer_is_shown_where_there_is_no_voice_to_speak_it() {
    let gateway = gateway().await;
    let mut phone = Phone::attach(&gateway, ANN).await;

    phone.say(&json!({"type": "local_transcription", "text": "Good morning.", "isFinal": true})).await;

    loop {
        let shown = phone.next_of("display_event").await;
        assert_eq!((&shown["view"], &shown["layout"]["layoutType"]), (&json!("main"), &json!("text_wall")));
        if shown["layout"]["text"].as_str().unwrap().contains("Good morning.") {
            return;
        }
    }
}

#[actix_web::test]
async fn what_phones_call_beside_their_socket_answers_for_the_user_of_the_token() {
    let gateway = gateway().await;
    let call = |method: reqwest::Method, path: &str, body: Option<Value>| {
        let mut request = gateway.http.request(method, format!("{}/api/client/{path}", gateway.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.bearer_auth(core_token(ANN))
    };
    let (get, post) = (reqwest::Method::GET, reqwest::Method::POST);

    let none = call(get.clone(), "livekit/token", None).send().await.unwrap();
    assert_eq!((none.status().as_u16(), none.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    let mut backend = Phone::consumer(&gateway, &format!("?user={ANN}")).await;
    let mut phone = Phone::attach(&gateway, ANN).await;
    let ack = phone.next().await;
    let (status, joined) = answer(call(get, "livekit/token", None)).await;
    assert_eq!((status, &joined["success"]), (200, &json!(true)));
    assert!(joined["data"]["token"].as_str().unwrap().starts_with("eyJ"), "{joined}");

    let (status, pcm) = answer(call(post.clone(), "audio/configure", Some(json!({"format": "pcm"})))).await;
    assert_eq!((status, &pcm["format"]), (200, &json!("pcm")));
    let lc3 = json!({"format": "lc3", "lc3Config": {"sampleRate": 16000, "frameDurationMs": 10, "frameSizeBytes": 20}});
    let (status, problem) = answer(call(post.clone(), "audio/configure", Some(lc3))).await;
    assert_eq!((status, &problem["code"]), (400, &json!("UNSUPPORTED")));
    assert!(problem["detail"].as_str().unwrap().contains("lc3"), "{problem}");
    let (status, _) = answer(call(post.clone(), "audio/configure", Some(json!({})))).await;
    assert_eq!(status, 400);

    let state = json!({"connected": true, "modelName": "G1"});
    assert_eq!(answer(call(post.clone(), "device/state", Some(state))).await.0, 200);
    let told = backend.next_of("device_state").await;
    assert_eq!((&told["modelName"], &told["sessionId"]), (&json!("G1"), &ack["sessionId"]));
    assert_eq!(answer(call(post, "goodbye", None)).await.0, 200);
    assert_eq!(backend.next_of("goodbye").await["userId"], ANN);
    phone.until_pong().await;
}

#[actix_web::test]
async fn no_clip_is_there_for_who_guesses() {
    let gateway = TestGateway::start().await;
    for name in ["x.wav", "x", &format!("{}.wav", "a".repeat(32))] {
        let (status, problem) = gateway.get(&format!("/clips/{name}")).await;
        assert_eq!((status, &problem["code"]), (404, &json!("NOT_FOUND")));
    }
}
