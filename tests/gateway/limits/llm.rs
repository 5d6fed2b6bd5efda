//! What one user may ask of the language model.

use june_edge::protocol::{ToClient, edge_v1::to_client::Finish};
use serde_json::json;
use test_support::{Answers, OpenAi};

use super::refusals;
use crate::support::{Glasses, TestGateway};

async fn finish(glasses: &mut Glasses) -> (Finish, String) {
    glasses
        .wait_for(|message| match message {
            ToClient::AnswerDone { finish, text, .. } => Some((*finish, text.clone())),
            _ => None,
        })
        .await
}

async fn error(glasses: &mut Glasses) -> (String, Option<u64>, Option<String>) {
    glasses
        .wait_for(|message| match message {
            ToClient::Error { code, retry_after_ms, reply_to, .. } => {
                Some((code.to_string(), *retry_after_ms, reply_to.clone()))
            }
            _ => None,
        })
        .await
}

fn line(text: &str) -> String {
    json!({"type": "say", "text": text, "id": text}).to_string()
}

#[actix_web::test]
async fn a_user_types_only_so_many_lines_in_all_sessions_together() {
    let gateway = TestGateway::with(&[("LLM", "echo")]).await;
    let mut first = gateway.glasses("ann").await;
    for n in 0..5 {
        first.say(&line(&format!("line {n}"))).await;
        assert_eq!(finish(&mut first).await.0, Finish::Stop);
    }

    first.say(&line("one too many")).await;

    let (code, retry_after_ms, reply_to) = error(&mut first).await;
    assert_eq!((code.as_str(), reply_to.as_deref()), ("RATE_LIMITED", Some("one too many")));
    assert!(retry_after_ms.is_some_and(|wait| wait <= 3_000), "{retry_after_ms:?}");
    let mut second = gateway.glasses("ann").await;
    second.say(&line("by another session")).await;
    assert_eq!(error(&mut second).await.0, "RATE_LIMITED");
    let path = format!("/api/sessions/{}/history", first.session.session_id);
    let (_, history) = gateway.get(&path).await;
    assert!(!history.to_string().contains("one too many"), "{history}");

    let mut bob = gateway.glasses("bob").await;
    bob.say(&line("Hello")).await;
    assert_eq!(finish(&mut bob).await.0, Finish::Stop);
}

#[actix_web::test]
async fn one_users_calls_of_the_language_model_are_limited_and_anothers_are_answered() {
    let llm = OpenAi::start(Answers::Brief).await;
    let url = llm.url();
    let settings = [
        ("OPENAI_BASE_URL", url.as_str()),
        ("LINES_PER_MINUTE_BY_USER", "0"),
        ("LLM_CALLS_PER_MINUTE_BY_USER", "3"),
    ];
    let gateway = TestGateway::with(&settings).await;
    let before = refusals(&gateway, "llm_calls_per_minute").await;
    let mut ann = gateway.glasses("ann").await;
    for _ in 0..3 {
        ann.say(&line("Hello")).await;
        assert_eq!(finish(&mut ann).await, (Finish::Stop, "Yes.".into()));
    }

    for _ in 0..20 {
        ann.say(&line("Hello")).await;
    }
    let (code, retry_after_ms, _) = error(&mut ann).await;

    assert_eq!(code, "RATE_LIMITED");
    assert!(retry_after_ms.is_some_and(|wait| wait > 30_000), "{retry_after_ms:?}");
    ann.ping().await;
    let mut again = gateway.glasses("ann").await;
    again.say(&line("Hello")).await;
    assert_eq!(error(&mut again).await.0, "RATE_LIMITED", "a new session has no calls of its own");
    assert_eq!(llm.requests(), 3);
    assert!(refusals(&gateway, "llm_calls_per_minute").await > before);

    let mut bob = gateway.glasses("bob").await;
    bob.say(&line("Hello")).await;
    assert_eq!(finish(&mut bob).await.0, Finish::Stop);
}

#[actix_web::test]
async fn the_gateways_own_share_of_the_language_model_is_limited() {
    let llm = OpenAi::start(Answers::Brief).await;
    let url = llm.url();
    let settings = [("OPENAI_BASE_URL", url.as_str()), ("LLM_CALLS_PER_DAY", "1")];
    let gateway = TestGateway::with(&settings).await;
    let (mut ann, mut bob) = (gateway.glasses("ann").await, gateway.glasses("bob").await);
    ann.say(&line("Hello")).await;
    assert_eq!(finish(&mut ann).await.0, Finish::Stop);

    bob.say(&line("Hello")).await;

    let (code, retry_after_ms, _) = error(&mut bob).await;
    assert_eq!(code, "OVERLOADED");
    assert!(retry_after_ms.is_some_and(|wait| wait > 80_000_000), "{retry_after_ms:?}");
    assert_eq!(llm.requests(), 1);
}

#[actix_web::test]
async fn lines_that_were_not_answered_do_not_make_the_prompt_grow_without_end() {
    let llm = OpenAi::start(Answers::Unfinished).await;
    let url = llm.url();
    let settings = [
        ("OPENAI_BASE_URL", url.as_str()),
        ("LINES_PER_MINUTE_BY_USER", "0"),
        ("LLM_CALLS_PER_MINUTE_BY_USER", "0"),
    ];
    let gateway = TestGateway::with(&settings).await;
    let mut ann = gateway.glasses("ann").await;

    for _ in 0..40 {
        ann.say(&line(&"x".repeat(3_900))).await;
    }
    ann.ping().await;
    ann.say(&line("The end")).await;
    ann.wait_for(|message| matches!(message, ToClient::AnswerDelta { .. }).then_some(())).await;

    assert!(llm.requests() > 0);
    assert!(llm.longest() < 20_000, "{} bytes", llm.longest());
}

#[actix_web::test]
async fn an_answer_without_end_is_cut_and_says_so() {
    let llm = OpenAi::start(Answers::Unfinished).await;
    let url = llm.url();
    let gateway = TestGateway::with(&[("OPENAI_BASE_URL", &url), ("LLM_MAX_SECONDS", "1")]).await;
    let mut ann = gateway.glasses("ann").await;

    ann.say(&line("Hello")).await;

    assert_eq!(finish(&mut ann).await, (Finish::Length, "Yes.".into()));
}
