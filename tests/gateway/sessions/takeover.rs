//! Takeover of a session by a newer connection, and its grace period.

use june_edge::protocol::{
    ToClient,
    edge_v1::from_client::{ConnectionInit, Resume},
};
use serde_json::json;

use crate::{
    raw::Raw,
    support::{Glasses, TestGateway},
};

#[actix_web::test]
async fn an_old_socket_that_closes_after_a_takeover_does_not_end_the_session() {
    // Were the old socket's end taken for the session's, it would be over in a millisecond.
    let gateway = TestGateway::with(&[("SESSION_GRACE_MS", "1")]).await;
    let session = gateway.session("ann").await;
    let (older, _) = Raw::attach(&gateway, &session.control_token, None).await;
    let mut newer = Glasses::attach(session, ConnectionInit::default()).await.unwrap();

    older.end(None).await;

    for text in ["one", "two"] {
        newer.say(&json!({"type": "say", "text": text}).to_string()).await;
        let answer = newer
            .wait_for(|message| match message {
                ToClient::AnswerDone { text, .. } => Some(text.clone()),
                _ => None,
            })
            .await;
        assert!(answer.contains(text), "{answer}");
        newer.wait_for(|message| matches!(message, ToClient::TurnSaved { .. }).then_some(())).await;
    }
    assert_eq!(gateway.get(&format!("/api/sessions/{}", newer.ack.session_id)).await.0, 200);
}

#[actix_web::test]
async fn a_client_that_returns_within_the_grace_resumes_however_its_channel_closed() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let (mut channel, first) = Raw::attach(&gateway, &session.control_token, None).await;
    for code in [Some(1000), Some(1001), Some(1011), Some(4000), None] {
        let wish = channel.wait_for("microphone_state_change").await;
        channel.end(code).await;

        let resume = json!({
            "sessionId": first["sessionId"], "resumeToken": first["resumeToken"], "lastServerSeq": wish["seq"],
        });
        let (again, ack) = Raw::attach(&gateway, &session.control_token, Some(resume)).await;

        assert_eq!((&ack["resumed"], &ack["sessionId"]), (&json!(true), &first["sessionId"]), "{code:?}");
        channel = again;
    }
}

#[actix_web::test]
async fn after_the_grace_there_is_a_new_session() {
    let gateway = TestGateway::with(&[("SESSION_GRACE_MS", "1")]).await;
    let mut before = gateway.glasses("ann").await;
    let resume = Resume {
        session_id: before.ack.session_id,
        resume_token: before.ack.resume_token.clone(),
        last_server_seq: before.channel.last_seq(),
        last_audio_seq: 0,
    };
    before.channel.writer().close().await.unwrap();
    before.closed().await;
    let path = format!("/api/sessions/{}", before.ack.session_id);
    while gateway.get(&path).await.0 != 404 {
        tokio::task::yield_now().await;
    }

    let init = ConnectionInit { resume: Some(resume), ..ConnectionInit::default() };
    let mut after = Glasses::attach(before.session, init).await.unwrap();

    assert!(!after.ack.resumed);
    assert_ne!(after.ack.session_id, before.ack.session_id);
    after.ping().await;
}
