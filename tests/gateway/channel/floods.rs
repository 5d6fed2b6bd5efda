//! Clients that send too much, and clients that do not read.

use june_edge::protocol::MAX_BINARY_BYTES;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{raw::Raw, support::TestGateway};

/// More messages than the limit of a second, and more replies than a connection and a queue hold.
const FLOOD: usize = 10_000;

/// Sends a message again and again, until the connection takes no more.
async fn flood(raw: &mut Raw, message: Message) {
    for _ in 0..FLOOD {
        if raw.send(message.clone()).await.is_err() {
            return;
        }
    }
}

#[actix_web::test]
async fn a_client_that_floods_is_warned_and_then_closed() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let (mut raw, ack) = Raw::attach(&gateway, &session.control_token, None).await;

    flood(&mut raw, Message::text(r#"{"type":"pong"}"#)).await;

    let (code, errors) = raw.closed().await;
    assert_eq!(code, 4429);
    assert!(errors.iter().all(|code| code == "RATE_LIMITED") && errors.len() >= 2, "{errors:?}");
    let (_, again) = Raw::attach(&gateway, &session.control_token, None).await;
    assert_eq!(again["sessionId"], ack["sessionId"]);
}

#[actix_web::test]
async fn pings_of_the_websocket_protocol_are_limited_like_messages() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let (mut raw, _) = Raw::attach(&gateway, &session.control_token, None).await;

    flood(&mut raw, Message::Ping("are you there".into())).await;

    assert_eq!(raw.closed().await.0, 1008);
}

#[actix_web::test]
async fn a_client_that_does_not_read_is_closed_with_4408_and_resumes() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let (mut raw, ack) = Raw::attach(&gateway, &session.control_token, None).await;
    let control = raw.wait_for("microphone_state_change").await;

    // Each of these is answered, and no answer is read.
    let unreadable = vec![0; MAX_BINARY_BYTES / 1024];
    for _ in 0..FLOOD {
        raw.send(Message::binary(unreadable.clone())).await.unwrap();
    }

    assert_eq!(raw.closed().await.0, 4408);
    let resume = json!({
        "sessionId": ack["sessionId"], "resumeToken": ack["resumeToken"], "lastServerSeq": control["seq"],
    });
    let (mut raw, ack) = Raw::attach(&gateway, &session.control_token, Some(resume)).await;
    assert_eq!(ack["resumed"], true);
    raw.send(Message::text(r#"{"type":"ping","t":1}"#)).await.unwrap();
    assert_eq!(raw.wait_for("pong").await["t"], 1);
}
