//! `POST /api/webhooks/stt` and `/api/webhooks/voice_onset`

use june_edge::protocol::{ToClient, edge_v1::to_client::StreamData};
use serde_json::{Value, json};

use crate::support::{BACKEND, Glasses, TestGateway, answer};

const PATH: &str = "/api/webhooks/stt";
const TOKEN: &str = "stt-token-of-the-tests";

async fn transcript(glasses: &mut Glasses) -> (String, bool) {
    glasses
        .wait_for(|message| match message {
            ToClient::DataStream { data: StreamData::Transcription { text, is_final, .. }, .. } => {
                Some((text.clone(), *is_final))
            }
            _ => None,
        })
        .await
}

async fn answered(glasses: &mut Glasses) -> String {
    glasses
        .wait_for(|message| match message {
            ToClient::AnswerDone { text, .. } => Some(text.clone()),
            _ => None,
        })
        .await
}

#[actix_web::test]
async fn interims_and_a_final_of_the_users_room_reach_the_client_and_are_answered_once() {
    let gateway = TestGateway::with(&[("LLM", "echo")]).await;
    let mut glasses = gateway.glasses("ann").await;
    let room = glasses.session.room_name.to_string();
    let send = async |text: &str, partial: bool| {
        let body = json!({
            "event": "transcript", "room_name": room, "participant": "ann", "text": text, "partial": partial,
            "utterance_id": "u1", "timestamp": "2025-10-31T10:00:00Z", "language": "en", "confidence": 0.9,
        });
        gateway.post(PATH, &body).await
    };

    let (status, body) = send("Go forw", true).await;
    assert_eq!((status, &body["status"]), (200, &json!("success")), "{body}");
    assert_eq!(transcript(&mut glasses).await, ("Go forw".into(), false));
    let (_, body) = send("Go forward.", false).await;

    assert_eq!(body["status"], "success");
    assert_eq!(transcript(&mut glasses).await, ("Go forward.".into(), true));
    assert!(answered(&mut glasses).await.contains("Go forward."));
    let (status, body) = send("Go forward.", false).await;
    assert_eq!((status, &body["reason"]), (200, &json!("duplicate")));
    let path = format!("/api/sessions/{}/history", glasses.session.session_id);
    let (_, history) = gateway.get(&path).await;
    let said = history["lines"].as_array().unwrap().iter().filter(|line| line["kind"] == "utterance");
    assert_eq!(said.count(), 1);
}

#[actix_web::test]
async fn a_session_is_found_by_its_id_its_room_or_its_user_and_nobody_elses_speech_is_taken() {
    let gateway = TestGateway::with(&[("LLM", "echo")]).await;
    let mut glasses = gateway.glasses("ann").await;
    gateway.glasses("bob").await;
    let room = glasses.session.room_name.to_string();
    for (n, named) in [
        json!({"session_id": glasses.session.session_id}),
        json!({"roomName": room}),
        json!({"participant": "ann"}),
        json!({"session_id": "ann", "room_name": "ozzu-main"}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = named;
        body["transcript"] = format!("Line {n}.").into();
        let (status, received) = gateway.post(PATH, &body).await;
        assert_eq!((status, &received["status"]), (200, &json!("success")), "{body} {received}");
        assert_eq!(transcript(&mut glasses).await, (format!("Line {n}."), true));
    }

    let code = async |body: Value| {
        let (status, problem) = gateway.post(PATH, &body).await;
        (status, problem["code"].as_str().unwrap_or_default().to_owned())
    };
    let foreign = json!({"room_name": room, "participant": "bob", "text": "Hello."});
    assert_eq!(code(foreign).await, (403, "FORBIDDEN".into()));
    assert_eq!(
        code(json!({"participant": "nobody", "text": "Hello."})).await,
        (404, "SESSION_NOT_FOUND".into())
    );
    assert_eq!(code(json!({"text": "Hello."})).await, (400, "INVALID_REQUEST".into()));
    let (status, body) = gateway.post(PATH, &json!({"participant": "ann", "text": " "})).await;
    assert_eq!((status, &body["reason"]), (200, &json!("empty_text")));
}

#[actix_web::test]
async fn the_services_token_or_a_backends_key_is_needed() {
    let settings =
        [("LLM", "echo"), ("API_KEYS", BACKEND), ("HOST", "127.0.0.1"), ("STT_SERVICE_TOKEN", TOKEN)];
    let gateway = TestGateway::with(&settings).await;
    let request = gateway.http.post(format!("{}/api/sessions", gateway.url)).bearer_auth(BACKEND);
    let (_, made) = answer(request.json(&json!({"user_id": "ann"}))).await;
    let send = async |bearer: &str| {
        let body = json!({"session_id": made["session_id"], "text": "Hello."});
        let request = gateway.http.post(format!("{}{PATH}", gateway.url)).bearer_auth(bearer);
        answer(request.json(&body)).await.0
    };

    assert_eq!(gateway.post(PATH, &json!({"text": "Hello."})).await.0, 401);
    assert_eq!(send("nonsense").await, 401);
    assert_eq!(send(made["control_token"].as_str().unwrap()).await, 403);
    // No client is there yet: what is heard is too late.
    assert_eq!(send(TOKEN).await, 404);
    assert_eq!(send(BACKEND).await, 404);
}

#[actix_web::test]
async fn a_voice_onset_says_whether_there_was_an_answer_to_interrupt() {
    let gateway = TestGateway::with(&[("LLM", "echo")]).await;
    let _glasses = gateway.glasses("ann").await;

    let (status, body) = gateway.post("/api/webhooks/voice_onset", &json!({"participant": "ann"})).await;

    assert_eq!((status, &body["reason"]), (200, &json!("nothing_to_interrupt")), "{body}");
}
