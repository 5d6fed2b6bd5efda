//! LiveKit is not running at first.

use june_edge::protocol::{
    ToClient,
    edge_v1::to_client::{MediaReason, MediaSource},
};

use crate::support::{June, LivekitServer, Publisher, clips, free_port, word_errors};

#[actix_web::test]
async fn the_gateway_works_without_livekit_and_joins_when_it_comes() {
    let port = free_port();
    let mut livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    glasses
        .wait_for_message(|message| match message {
            ToClient::MediaState { reason: MediaReason::LivekitUnreachable, .. } => Some(()),
            _ => None,
        })
        .await;
    let session = june.session("bob").await;
    assert!(session.access_token.is_some(), "tokens are signed without LiveKit");

    livekit.run().await;
    glasses.agent().await;

    let room = glasses.ack.livekit.clone().unwrap();
    let mut publisher = Publisher::join(&room.url, &room.token, "").await;
    let clip = clips().into_iter().find(|clip| clip.path.ends_with("goforward.wav")).unwrap();
    publisher.begin(&clip);
    let source = glasses
        .wait_for_message(|message| match message {
            ToClient::SpeechStarted { source, .. } => Some(*source),
            _ => None,
        })
        .await;
    assert_eq!(source, MediaSource::Livekit, "a track without a name is heard if it is a microphone");
    assert_eq!(word_errors(&clip.words, &glasses.final_words().await), 0);
}
