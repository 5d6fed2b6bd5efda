//! Options of a session, over REST and on the channel. Nothing transcribes or speaks here; the echo answers.

use june_client::{ClientError, SessionInfo};
use june_edge::protocol::{
    Mode, SessionOptions, ToClient,
    edge_v1::{from_client::ConnectionInit, to_client::StreamData},
};
use serde_json::{Value, json};

use crate::support::{Glasses, TestGateway, soon, user_id};

fn captions_in_german() -> SessionOptions {
    SessionOptions { language: Some("de".into()), mode: Some(Mode::Captions), ..SessionOptions::default() }
}

/// Attaches to a session that another process of the gateway knows.
async fn attach_to(gateway: &TestGateway, mut session: SessionInfo) -> Glasses {
    session.control_url = gateway.ws_url();
    Glasses::attach(session, ConnectionInit::default()).await.unwrap()
}

async fn configured(glasses: &mut Glasses) -> SessionOptions {
    glasses
        .wait_for(|message| match message {
            ToClient::SessionConfigured { options, .. } => Some((**options).clone()),
            _ => None,
        })
        .await
}

async fn final_transcript(glasses: &mut Glasses) -> (String, String) {
    glasses
        .wait_for(|message| match message {
            ToClient::DataStream {
                data: StreamData::Transcription { text, is_final: true, transcribe_language, .. },
                ..
            } => Some((text.clone(), transcribe_language.clone())),
            ToClient::TurnStarted { .. } | ToClient::AnswerDelta { .. } | ToClient::AnswerDone { .. } => {
                panic!("captions are answered: {message:?}")
            }
            _ => None,
        })
        .await
}

#[actix_web::test]
async fn options_of_a_new_session_are_in_force_and_shown() {
    let gateway = TestGateway::start().await;
    let options = json!({
        "language": "auto", "language_hints": ["de-at", "en"], "instructions": "Be kind.", "mode": "push_to_talk",
        "vocabulary": ["June"], "llm": ["echo"],
    });
    let mut beside = options.clone();
    beside["user_id"] = json!("ann");
    let within = json!({"user_id": "ann", "options": options});

    for body in [beside, within] {
        let (status, session) = gateway.post("/api/sessions", &body).await;
        let id = session["session_id"].as_str().unwrap().to_owned();
        let (_, shown) = gateway.get(&format!("/api/sessions/{id}")).await;

        assert_eq!(status, 201, "{session}");
        let mut expected = options.clone();
        expected["language_hints"] = json!(["de-AT", "en"]);
        assert_eq!(session["options"], expected);
        assert_eq!(shown["options"], expected);
        let session = serde_json::from_value(session).unwrap();
        let glasses = Glasses::attach(session, ConnectionInit::default()).await.unwrap();
        assert_eq!(glasses.ack.options.mode, Some(Mode::PushToTalk));
        assert_eq!(glasses.ack.options.language_hints.unwrap(), ["de-AT", "en"]);
    }
    let (_, session) = gateway.post("/api/sessions", &json!({"user_id": "ann"})).await;
    assert_eq!(session["options"], json!({"language": "en-US", "mode": "conversation", "llm": ["echo"]}));
}

#[actix_web::test]
async fn options_that_are_not_valid_are_refused_by_name_and_no_session_is_made() {
    let gateway = TestGateway::start().await;
    for (options, reason) in [
        (json!({"languge": "de"}), "languge: no such option; there are language, "),
        (json!({"tools": [{"name": "a b"}]}), "tools: "),
        (json!({"language": "de_DE"}), "language: must be a language tag"),
        (json!({"mode": "karaoke"}), "mode: unknown variant `karaoke`, expected one of `conversation`, "),
        (json!({"vocabulary": "June"}), "vocabulary: "),
        (json!({"llm": ["hal"]}), "llm: \"hal\" is none of echo"),
        (json!({"stt": ["hal"]}), "stt: this gateway has none"),
        (json!({"instructions": "x".repeat(4_001)}), "instructions: must have 1 to 4000 bytes"),
    ] {
        let (status, problem) =
            gateway.post("/api/sessions", &json!({"user_id": "ann", "options": options})).await;

        let detail = problem["detail"].as_str().unwrap();
        assert_eq!((status, problem["code"].as_str()), (400, Some("INVALID_REQUEST")), "{options}");
        assert!(detail.starts_with(reason), "{detail}");
    }
    let (status, _) = gateway.post("/api/sessions", &json!({"user_id": "ann", "mode": 5})).await;
    assert_eq!(status, 400, "beside the user, too");
    let refused = gateway
        .api
        .create_session_with(
            &user_id("ann"),
            &SessionOptions { language: Some("de_DE".into()), ..SessionOptions::default() },
        )
        .await;
    assert!(matches!(refused, Err(ClientError::Refused { code, .. }) if code == "INVALID_REQUEST"));
    let (_, sessions) = gateway.get("/api/admin/sessions").await;
    assert_eq!(sessions["sessions"], json!([]), "{sessions}");
}

#[actix_web::test]
async fn what_is_said_in_captions_is_told_and_saved_and_not_answered() {
    let gateway = TestGateway::start().await;
    let session = gateway.api.create_session_with(&user_id("ann"), &captions_in_german()).await.unwrap();
    let mut glasses = Glasses::attach(session, ConnectionInit::default()).await.unwrap();

    for n in 0..20 {
        let text = format!("Satz {n}.");
        glasses.say(&json!({"type": "local_transcription", "text": text, "isFinal": true}).to_string()).await;
        assert_eq!(final_transcript(&mut glasses).await, (text, "de".to_owned()));
    }
    glasses.say(r#"{"type":"say","text":"Hello","id":"s1"}"#).await;
    assert_eq!(glasses.error().await, "SESSION_ERROR");

    let path = format!("/api/sessions/{}/history?limit=500", glasses.ack.session_id);
    let lines = soon(async {
        loop {
            let (_, history) = gateway.get(&path).await;
            let lines = history["lines"].as_array().unwrap().clone();
            if lines.len() >= 20 {
                return lines;
            }
        }
    })
    .await;
    assert_eq!(lines.len(), 20);
    assert!(lines.iter().all(|line| line["kind"] == "utterance" && line["language"] == "de"), "{lines:?}");
}

#[actix_web::test]
async fn the_mode_of_a_session_can_change() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    glasses.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#).await;
    assert_eq!(configured(&mut glasses).await.mode, Some(Mode::Captions));
    glasses.say(r#"{"type":"local_transcription","text":"Unanswered.","isFinal":true}"#).await;
    final_transcript(&mut glasses).await;

    glasses.say(r#"{"type":"configure_session","options":{"mode":"conversation"}}"#).await;
    configured(&mut glasses).await;
    glasses.say(r#"{"type":"local_transcription","text":"Answered.","isFinal":true}"#).await;

    let answer = glasses
        .wait_for(|message| match message {
            ToClient::AnswerDone { text, .. } => Some(text.clone()),
            _ => None,
        })
        .await;
    assert!(answer.contains("Answered.") && !answer.contains("Unanswered."), "{answer}");
}

#[actix_web::test]
async fn options_survive_a_restart_of_the_gateway() {
    let gateway = TestGateway::start().await;
    let created = gateway.api.create_session_with(&user_id("ann"), &captions_in_german()).await.unwrap();
    let mut changed = gateway.glasses("bob").await;
    changed.say(r#"{"type":"configure_session","options":{"language":"ja","vocabulary":["June"]}}"#).await;
    configured(&mut changed).await;

    let gateway = gateway.restart(&[]).await;

    let ann = attach_to(&gateway, created).await;
    assert_eq!(
        (ann.ack.options.language.as_deref(), ann.ack.options.mode),
        (Some("de"), Some(Mode::Captions))
    );
    assert_eq!(ann.ack.user_session.minimum_transcription_languages, ["de"]);
    let bob = attach_to(&gateway, changed.session).await;
    assert_eq!(bob.ack.session_id, changed.ack.session_id);
    assert_eq!(bob.ack.options.language.as_deref(), Some("ja"));
    assert_eq!(bob.ack.options.vocabulary.unwrap(), ["June"]);
}

#[actix_web::test]
async fn a_session_in_place_of_one_that_ran_out_of_grace_has_its_options() {
    let gateway = TestGateway::with(&[("SESSION_GRACE_MS", "50")]).await;
    let session = gateway.api.create_session_with(&user_id("ann"), &captions_in_german()).await.unwrap();
    let mut before = Glasses::attach(session, ConnectionInit::default()).await.unwrap();
    before.channel.writer().close().await.unwrap();
    before.closed().await;
    let path = format!("/api/sessions/{}", before.ack.session_id);
    soon(async {
        while gateway.get(&path).await.0 != 404 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let after = Glasses::attach(before.session, ConnectionInit::default()).await.unwrap();

    assert_ne!(after.ack.session_id, before.ack.session_id);
    assert_eq!(after.ack.options.mode, Some(Mode::Captions));
}

#[actix_web::test]
async fn the_language_of_the_settings_is_that_of_a_session_that_asks_for_none() {
    for (setting, language, heard) in [("de-at", "de-AT", "de-AT"), ("auto", "auto", "und")] {
        let gateway = TestGateway::with(&[("SESSION_LANGUAGE", setting)]).await;
        let mut glasses = gateway.glasses("ann").await;
        assert_eq!(glasses.ack.options.language.as_deref(), Some(language));

        glasses.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#).await;
        glasses.say(r#"{"type":"local_transcription","text":"Hallo.","isFinal":true}"#).await;

        assert_eq!(final_transcript(&mut glasses).await, ("Hallo.".to_owned(), heard.to_owned()));
    }
}

#[actix_web::test]
async fn a_message_without_options_is_malformed_and_changes_nothing() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    for options in [Value::Null, json!([]), json!("captions")] {
        glasses.say(&json!({"type": "configure_session", "options": options}).to_string()).await;
        assert_eq!(glasses.error().await, "MALFORMED_MESSAGE");
    }
    glasses.say(r#"{"type":"configure_session","options":{}}"#).await;
    assert_eq!(configured(&mut glasses).await.mode, Some(Mode::Conversation));
}
