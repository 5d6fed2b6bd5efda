//! A session outlives its socket.

use june_edge::{
    client::{ClientError, SessionInfo},
    protocol::{
        ToClient,
        edge_v1::{
            from_client::{ConnectionInit, Resume},
            to_client::{EndReason, MediaReason, MediaSource},
        },
    },
};
use serde_json::Value;

use crate::support::{Glasses, TestGateway, soon};

fn resume(glasses: &Glasses) -> ConnectionInit {
    ConnectionInit {
        resume: Some(Resume {
            session_id: glasses.ack.session_id,
            resume_token: glasses.ack.resume_token.clone(),
            last_server_seq: glasses.channel.last_seq(),
            last_audio_seq: 0,
        }),
        ..ConnectionInit::default()
    }
}

#[actix_web::test]
async fn a_client_that_comes_back_gets_what_it_missed() {
    let gateway = TestGateway::start().await;
    let mut before = gateway.glasses("ann").await;
    before.ping().await;
    let init = resume(&before);
    before.say(r#"{"type":"say","text":"Hello there"}"#).await;
    before.channel.writer().close().await.unwrap();
    before.closed().await;

    let mut after = Glasses::attach(before.session, init).await.unwrap();

    assert!(after.ack.resumed);
    assert_eq!(after.ack.epoch, 2);
    let text = after
        .wait_for(|message| match message {
            ToClient::AnswerDone { text, .. } => Some(text.clone()),
            _ => None,
        })
        .await;
    assert!(text.contains("Hello there"), "{text}");
}

#[actix_web::test]
async fn a_newer_socket_takes_the_session_and_the_older_one_is_told_why() {
    let gateway = TestGateway::start().await;
    let mut older = gateway.glasses("ann").await;

    let mut newer = Glasses::attach(older.session.clone(), ConnectionInit::default()).await.unwrap();

    let reason = older
        .wait_for(|message| match message {
            ToClient::SessionEnd { reason } => Some(*reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, EndReason::Superseded);
    assert_eq!(older.closed().await.0, 4001);
    newer.ping().await;
}

#[actix_web::test]
async fn after_the_grace_a_client_gets_a_new_session() {
    let gateway = TestGateway::with(&[("SESSION_GRACE_MS", "50")]).await;
    let mut before = gateway.glasses("ann").await;
    let init = resume(&before);
    before.channel.writer().close().await.unwrap();
    before.closed().await;
    let path = format!("/api/sessions/{}", before.ack.session_id);
    while gateway.get(&path).await.0 != 404 {
        tokio::task::yield_now().await;
    }

    let after = Glasses::attach(before.session, init).await.unwrap();

    assert!(!after.ack.resumed);
    assert_ne!(after.ack.session_id, before.ack.session_id);
}

#[actix_web::test]
async fn after_a_good_bye_the_token_opens_nothing() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    glasses.say(r#"{"type":"goodbye"}"#).await;
    assert_eq!(glasses.closed().await.0, 1000);

    let refused = Glasses::attach(glasses.session, ConnectionInit::default()).await;

    assert!(
        matches!(&refused, Err(ClientError::Refused { code, .. }) if code == "SESSION_NOT_FOUND"),
        "{:?}",
        refused.err()
    );
}

#[actix_web::test]
async fn a_client_that_shows_no_life_is_let_go() {
    let gateway = TestGateway::with(&[("SESSION_DEAD_AFTER_MS", "100")]).await;
    let mut glasses = gateway.glasses("ann").await;

    let (code, _) = glasses.closed().await;

    assert_eq!(code, 1001);
}

#[actix_web::test]
async fn a_gateway_that_goes_down_says_so_and_the_next_one_goes_on_with_the_session() {
    let gateway = TestGateway::start().await;
    let mut before = gateway.glasses("ann").await;
    let init = resume(&before);

    let (gateway, (code, _)) = tokio::join!(gateway.restart(&[]), before.closed());
    assert_eq!(code, 1012);

    let mut session = before.session;
    session.control_url = gateway.ws_url();
    let after = Glasses::attach(session, init).await.unwrap();
    assert_eq!(after.ack.session_id, before.ack.session_id);
    assert!(!after.ack.resumed, "what was missed is not known any more, and that is said");
    assert!(after.ack.epoch > before.ack.epoch);
}

#[actix_web::test]
async fn a_session_that_nobody_came_back_to_after_a_restart_is_over_when_its_grace_is() {
    let gateway = TestGateway::start().await;
    let before = gateway.glasses("ann").await;
    let init = resume(&before);
    let gateway = gateway.restart(&[("SESSION_GRACE_MS", "50")]).await;
    let path = format!("/api/sessions/{}", before.ack.session_id);
    soon(async {
        while gateway.get(&path).await.0 != 404 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let mut session = before.session;
    session.control_url = gateway.ws_url();
    let after = Glasses::attach(session, init).await.unwrap();

    assert!(!after.ack.resumed);
    assert_ne!(after.ack.session_id, before.ack.session_id);
}

#[actix_web::test]
async fn a_session_that_a_token_was_renewed_for_is_kept_and_one_that_nobody_used_is_forgotten() {
    let gateway = TestGateway::with(&[("SESSION_TTL_MS", "1")]).await;
    let path = |session: &SessionInfo| format!("/api/sessions/{}", session.session_id);
    let renewed = path(&gateway.session("ann").await);
    assert_eq!(gateway.post(&format!("{renewed}/token"), &Value::Null).await.0, 200);
    let unused = path(&gateway.session("ann").await);

    soon(async {
        while gateway.get(&unused).await.0 != 404 {
            gateway.session("bob").await;
        }
    })
    .await;

    assert_eq!(gateway.get(&renewed).await.0, 200);
}

#[actix_web::test]
async fn another_client_counts_its_frames_from_the_beginning() {
    let gateway = TestGateway::start().await;
    let mut first = gateway.glasses("ann").await;
    for _ in 0..5 {
        first.channel.writer().sound(&[1; 320], 0).await.unwrap();
    }
    heard(&mut first).await;

    let mut second = Glasses::attach(first.session, ConnectionInit::default()).await.unwrap();
    second.channel.writer().sound(&[1; 320], 0).await.unwrap();

    heard(&mut second).await;
}

/// Waits until the gateway says that it hears sound on the control channel.
async fn heard(glasses: &mut Glasses) {
    glasses
        .wait_for(|message| match message {
            ToClient::MediaState { active: MediaSource::Ws, reason: MediaReason::Audio, .. } => Some(()),
            _ => None,
        })
        .await;
}
