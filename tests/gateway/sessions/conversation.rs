//! Typed turns, answered by the parrot: the conversation without a voice.

use june_edge::protocol::{
    ToClient,
    edge_v1::to_client::{Finish, StreamData},
};
use serde_json::json;

use crate::support::{Glasses, TestGateway};

async fn answer(glasses: &mut Glasses) -> (String, Finish) {
    glasses
        .wait_for(|message| match message {
            ToClient::AnswerDone { text, finish, .. } => Some((text.clone(), *finish)),
            _ => None,
        })
        .await
}

async fn saved(glasses: &mut Glasses) -> u64 {
    glasses
        .wait_for(|message| match message {
            ToClient::TurnSaved { history_seq, .. } => Some(*history_seq),
            _ => None,
        })
        .await
}

#[actix_web::test]
async fn a_typed_line_is_answered_and_the_answer_is_put_together_from_its_pieces() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    glasses.say(r#"{"type":"say","text":"What is new?"}"#).await;

    let mut pieces = String::new();
    let whole = glasses
        .wait_for(|message| match message {
            ToClient::AnswerDelta { text, .. } => {
                pieces.push_str(text);
                None
            }
            ToClient::AnswerDone { text, finish: Finish::Stop, .. } => Some(text.clone()),
            _ => None,
        })
        .await;
    assert_eq!(pieces, whole);
    assert!(whole.contains("What is new?"), "{whole}");
    assert_eq!(saved(&mut glasses).await, 2);
}

#[actix_web::test]
async fn an_empty_or_endless_line_is_refused() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    for text in [" ".to_owned(), "x".repeat(5_000)] {
        glasses.say(&json!({"type": "say", "text": text, "id": "a"}).to_string()).await;
        assert_eq!(glasses.error().await, "INVALID_REQUEST");
    }
}

#[actix_web::test]
async fn what_a_client_transcribed_itself_is_a_turn_like_any_other() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;

    glasses.say(r#"{"type":"local_transcription","text":"Good","isFinal":false}"#).await;
    glasses.say(r#"{"type":"local_transcription","text":"Good morning.","isFinal":true}"#).await;

    let mut told = Vec::new();
    let (text, _) = glasses
        .wait_for(|message| match message {
            ToClient::DataStream {
                data: StreamData::Transcription { text, is_final, utterance_id, .. },
                ..
            } => {
                told.push((text.clone(), *is_final, *utterance_id));
                None
            }
            ToClient::AnswerDone { text, finish, .. } => Some((text.clone(), *finish)),
            _ => None,
        })
        .await;
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].0.as_str(), told[0].1), ("Good", false));
    assert_eq!((told[1].0.as_str(), told[1].1), ("Good morning.", true));
    assert_eq!(told[0].2, told[1].2, "one utterance");
    assert!(text.contains("Good morning."), "{text}");
}

#[actix_web::test]
async fn two_sessions_do_not_hear_each_other() {
    let gateway = TestGateway::start().await;
    let mut ann = gateway.glasses("ann").await;
    let mut bob = gateway.glasses("bob").await;

    ann.say(r#"{"type":"say","text":"I am Ann"}"#).await;
    bob.say(r#"{"type":"say","text":"I am Bob"}"#).await;

    assert!(answer(&mut ann).await.0.contains("Ann"));
    let (text, _) = answer(&mut bob).await;
    assert!(text.contains("Bob") && !text.contains("Ann"), "{text}");
}
