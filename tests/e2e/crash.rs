//! `kill -9` in the middle of a conversation: what was acknowledged is there afterwards.

use june_edge::protocol::edge_v1::from_client::{ConnectionInit, Resume};

use crate::support::{Glasses, June, LivekitServer, clips, free_port, word_errors};

#[actix_web::test]
async fn what_was_acknowledged_survives_and_the_client_goes_on_in_the_same_session() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let mut june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    let clips = clips();
    let (first, second) = (&clips[0], &clips[1]);
    glasses.speak(first).await;
    let acknowledged = glasses.turn_saved().await;

    june.kill_and_start_again().await;

    let history = june.history(&glasses.session).await;
    assert_eq!(history.last().unwrap()["seq"], acknowledged);
    assert!(word_errors(&first.words, history[0]["text"].as_str().unwrap()) <= 1);

    let resume = Resume {
        session_id: glasses.ack.session_id,
        resume_token: glasses.ack.resume_token.clone(),
        last_server_seq: glasses.channel.last_seq(),
        last_audio_seq: 0,
    };
    let init = ConnectionInit { resume: Some(resume), ..ConnectionInit::default() };
    let mut after = Glasses::attach(glasses.session.clone(), init).await;
    assert_eq!(after.ack.session_id, glasses.ack.session_id);
    assert!(after.ack.epoch > glasses.ack.epoch);
    after.speak(second).await;
    assert!(after.turn_saved().await > acknowledged);
    let history = june.history(&glasses.session).await;
    assert_eq!(history.len(), 4);
}

#[actix_web::test]
async fn a_session_that_nobody_attached_to_yet_survives() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let mut june = June::start(&livekit, data.path(), port).await;
    let session = june.session("ann").await;

    june.kill_and_start_again().await;

    let glasses = Glasses::attach(session.clone(), ConnectionInit::default()).await;
    assert_eq!(glasses.ack.session_id, session.session_id);
    assert_eq!(glasses.ack.livekit.as_ref().unwrap().room_name, session.room_name);
}
