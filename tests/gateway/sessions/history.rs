//! The conversation history: read over REST, kept across restarts, remembered by the next session.

use june_edge::{
    config::Config,
    protocol::{ToClient, edge_v1::from_client::ConnectionInit},
};

use crate::support::{BACKEND, Glasses, TestGateway, answer, key, user_id};

/// Says something, and gives the whole answer once it is saved.
async fn ask(glasses: &mut Glasses, text: &str) -> String {
    glasses.say(&format!(r#"{{"type":"say","text":"{text}"}}"#)).await;
    let answer = glasses
        .wait_for(|message| match message {
            ToClient::AnswerDone { text, .. } => Some(text.clone()),
            _ => None,
        })
        .await;
    glasses.wait_for(|message| matches!(message, ToClient::TurnSaved { .. }).then_some(())).await;
    answer
}

#[actix_web::test]
async fn utterances_and_answers_are_read_back_in_order_and_in_pages() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    ask(&mut glasses, "One").await;
    ask(&mut glasses, "Two").await;
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

/// What the echo model begins with if its prompt has no earlier answer of its own.
const GREETING: &str = "Hello.";

#[actix_web::test]
async fn history_survives_a_restart_and_the_next_session_remembers_it() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    let first = ask(&mut glasses, "Remember the milk").await;
    assert!(first.starts_with(GREETING), "{first}");
    let path = format!("/api/sessions/{}/history", glasses.ack.session_id);
    let (_, before) = gateway.get(&path).await;

    let gateway = gateway.restart(&[]).await;

    let (status, after) = gateway.get(&path).await;
    assert_eq!(status, 200);
    assert_eq!(after, before);
    let mut next = gateway.glasses("ann").await;
    assert_ne!(next.ack.session_id, glasses.ack.session_id);
    assert_eq!(ask(&mut next, "What was it").await, "You said: What was it.");
    let stranger = ask(&mut gateway.glasses("bob").await, "What was it").await;
    assert!(stranger.starts_with(GREETING), "a user's memory is not another's: {stranger}");
}

#[actix_web::test]
async fn with_session_memory_off_every_session_begins_anew() {
    let gateway = TestGateway::with(&[("SESSION_MEMORY", "off")]).await;
    ask(&mut gateway.glasses("ann").await, "Remember the milk").await;

    let mut next = gateway.glasses("ann").await;

    let first = ask(&mut next, "What was it").await;
    assert!(first.starts_with(GREETING), "{first}");
    let second = ask(&mut next, "And now").await;
    assert!(!second.starts_with(GREETING), "the session's own conversation is not memory: {second}");
}

#[test]
fn session_memory_is_off_or_a_number_of_lines() {
    let read = |value: &str| {
        let value = value.to_owned();
        Config::read(move |name| (name == "SESSION_MEMORY").then(|| value.clone()))
    };
    for (value, lines) in [("off", 0), ("0", 0), ("1", 1), ("24", 24)] {
        assert_eq!(read(value).unwrap().session.memory, lines, "{value}");
    }
    assert_eq!(Config::read(|_| None).unwrap().session.memory, 12);
    for value in ["25", "-1", "many", "1.5"] {
        let problems = read(value).unwrap_err().to_string();
        assert!(problems.contains("SESSION_MEMORY"), "{value}: {problems}");
    }
}

#[actix_web::test]
async fn the_history_of_a_session_is_deleted_by_its_user_or_a_backend_and_by_nobody_else() {
    let gateway = TestGateway::with(&[("API_KEYS", BACKEND), ("HOST", "127.0.0.1")]).await;
    let backend = june_client::Gateway::new(&gateway.url, key(BACKEND));
    let attach = async |user| {
        let session = backend.create_session(&user_id(user)).await.unwrap();
        Glasses::attach(session, ConnectionInit::default()).await.unwrap()
    };
    let (mut ann, eve) = (attach("ann").await, attach("eve").await);
    ask(&mut ann, "One").await;
    let url = format!("{}/api/sessions/{}/history", gateway.url, ann.ack.session_id);
    let delete = async |token: &str| answer(gateway.http.delete(&url).bearer_auth(token)).await;

    let (status, problem) = delete(&eve.session.control_token).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("FORBIDDEN")));

    let (status, receipt) = delete(&ann.session.control_token).await;
    assert_eq!((status, &receipt["deleted"]), (200, &2.into()));
    assert_eq!(receipt["session_id"], ann.ack.session_id.to_string());
    assert_eq!(backend.history(ann.ack.session_id).await.unwrap(), Vec::<serde_json::Value>::new());

    ask(&mut ann, "Two").await;
    let lines = backend.history(ann.ack.session_id).await.unwrap();
    assert_eq!(lines[0]["seq"], 3, "numbers are not used again");
    assert_eq!(delete(BACKEND).await.1["deleted"], 2);
}
