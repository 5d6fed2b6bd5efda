//! LiveKit and the language model do not answer.

use june_edge::protocol::ToClient;
use test_support::free_port;
use tokio::net::TcpListener;

use crate::support::{Launch, until};

#[actix_web::test]
async fn without_livekit_conversations_on_the_control_channel_go_on_and_health_says_why() {
    let data = tempfile::tempdir().unwrap();
    let livekit = format!("ws://127.0.0.1:{}", free_port());
    let launch = Launch::on(data.path()).with("LIVEKIT_URL", &livekit).with("LIVEKIT_API_KEY", "devkey");
    let june = launch.with("LIVEKIT_API_SECRET", "a-secret-of-more-than-thirty-two-bytes").start().await;

    let mut glasses = june.glasses("ann").await;
    glasses.ask_and_save("Are you there?").await;

    let part = until(async || {
        let part = june.part("livekit").await;
        part["message"].as_str().is_some_and(|message| message.contains("failed")).then_some(part)
    })
    .await;
    assert_eq!(part["ready"], false, "{part}");
    assert_eq!(june.get("/readyz").await.0, 200, "other gateways have the same LiveKit");
    glasses.ask_and_save("And now?").await;
}

#[actix_web::test]
async fn a_model_that_accepts_and_never_answers_ends_its_turn_with_an_error_and_keeps_nobody_out() {
    let data = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", silent.local_addr().unwrap());
    actix_web::rt::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            held.push(connection);
        }
    });
    let launch =
        Launch::on(data.path()).with("LLM", "openai").with("OPENAI_API_KEY", "a-key-for-a-silent-model");
    let june = launch.with("OPENAI_BASE_URL", &url).start().await;
    let mut ann = june.glasses("ann").await;

    ann.say("Are you there?").await;
    let _eve = june.glasses("eve").await;
    let finish = ann
        .wait_for(|message| match message {
            ToClient::AnswerDone { finish, .. } => Some(*finish),
            _ => None,
        })
        .await;

    assert_eq!(serde_json::to_value(finish).unwrap(), "error");
    let part = june.part("llm").await;
    assert_eq!(part["ready"], false, "{part}");
    assert_eq!(june.get("/readyz").await.0, 200);
}
