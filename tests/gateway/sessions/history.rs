//! What was said is kept.

use june_edge::protocol::ToClient;

use crate::support::{Glasses, TestGateway};

async fn say_and_wait_until_saved(glasses: &mut Glasses, text: &str) {
    glasses.say(&format!(r#"{{"type":"say","text":"{text}"}}"#)).await;
    glasses.wait_for(|message| matches!(message, ToClient::TurnSaved { .. }).then_some(())).await;
}

#[actix_web::test]
async fn utterances_and_answers_are_read_back_in_order_and_in_pages() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    say_and_wait_until_saved(&mut glasses, "One").await;
    say_and_wait_until_saved(&mut glasses, "Two").await;
    let path = format!("/api/sessions/{}/history", glasses.ack.session_id);

    let (status, all) = gateway.get(&path).await;

    assert_eq!(status, 200);
    let lines = all["lines"].as_array().unwrap();
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["utterance", "answer", "utterance", "answer"]);
    assert_eq!(lines[0]["text"], "One");
    assert_eq!(lines[2]["text"], "Two");
    assert!(all["next_after"].is_null());

    let (_, first) = gateway.get(&format!("{path}?limit=3")).await;
    assert_eq!(first["lines"].as_array().unwrap().len(), 3);
    let (_, rest) = gateway.get(&format!("{path}?limit=3&after={}", first["next_after"])).await;
    assert_eq!(rest["lines"].as_array().unwrap(), &lines[3..]);
}

#[actix_web::test]
async fn a_limit_that_makes_no_sense_is_refused() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    for limit in ["0", "501", "-1", "many"] {
        let (status, problem) =
            gateway.get(&format!("/api/sessions/{}/history?limit={limit}", session.session_id)).await;
        assert_eq!((status, problem["code"].as_str()), (400, Some("INVALID_REQUEST")), "{limit}");
    }
}

#[actix_web::test]
async fn history_survives_a_restart_and_the_next_session_remembers_it() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    say_and_wait_until_saved(&mut glasses, "Remember the milk").await;
    let path = format!("/api/sessions/{}/history", glasses.ack.session_id);
    let (_, before) = gateway.get(&path).await;

    let gateway = gateway.restart(&[]).await;

    let (status, after) = gateway.get(&path).await;
    assert_eq!(status, 200);
    assert_eq!(after, before);
}
