//! Paths of the user's audio: buffered while all STT workers are busy, in data packets, and over the control channel
//! after the agent lost its identity in the room.

use june_edge::protocol::{
    ToClient,
    edge_v1::to_client::{MediaReason, MediaSource},
};

use crate::support::{June, LivekitServer, Publisher, clip, free_port, word_errors};

#[actix_web::test]
async fn audio_that_arrives_while_all_stt_workers_are_busy_is_transcribed_from_its_first_word() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::with(&livekit, data.path(), port, &[("STT_WORKERS", "1")]).await;
    let (long, short) = (clip("sense_and_sensibility_0880.wav"), clip("goforward.wav"));

    // The one worker has three others to hear before.
    let mut others = Vec::new();
    for user in ["bob", "carol", "dave"] {
        let mut glasses = june.glasses(user).await;
        glasses.send_at_once(&long).await;
        others.push(glasses);
    }
    let mut glasses = june.glasses("ann").await;
    glasses.send_at_once(&short).await;

    assert_eq!(word_errors(&short.words, &glasses.final_words().await), 0);
    for mut other in others {
        assert!(word_errors(&long.words, &other.final_words().await) <= 1);
    }
}

#[actix_web::test]
async fn a_microphone_in_data_packets_is_transcribed_and_packets_of_others_are_ignored() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let room = glasses.ack.livekit.clone().unwrap();
    let eves = livekit.token(room.room_name.as_str(), "eve");
    let mut eve = Publisher::with_packets(&livekit.url(), &eves).await;
    let mut phone = Publisher::with_packets(&room.url, &room.token).await;
    let clip = clip("goforward.wav");

    glasses.media(|active, _| active == MediaSource::Data).await;
    eve.begin(&crate::support::clip("something.wav"));
    phone.begin(&clip);
    let source = glasses
        .wait_for_message(|message| match message {
            ToClient::SpeechStarted { source, .. } => Some(*source),
            _ => None,
        })
        .await;
    let words = glasses.final_words().await;

    assert_eq!(source, MediaSource::Data);
    assert_eq!(word_errors(&clip.words, &words), 0, "{words}");
    assert!(june.metric("june_packets_lost_total").await > 0);
    assert!(june.metric("june_packets_spoofed_total").await > 0);
    eve.leave().await;
    phone.leave().await;
}

#[actix_web::test]
async fn an_agent_whose_identity_is_taken_does_not_rejoin_and_the_control_channel_replaces_it() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let room_name = glasses.ack.livekit.clone().unwrap().room_name;

    let token = livekit.token(room_name.as_str(), "cloud-agent:ann");
    let other = Publisher::join(&livekit.url(), &token, "mic").await;
    let active = glasses
        .wait_for_message(|message| match message {
            ToClient::MediaState { reason: MediaReason::DuplicateIdentity, active, .. } => Some(*active),
            _ => None,
        })
        .await;
    assert_eq!(active, MediaSource::Ws, "where sound is expected now");

    let there = livekit.participants(room_name.as_str()).await;
    assert_eq!(there.len(), 1, "the other one: {there:?}");

    // Meanwhile the agent would have come back, ten times over.
    let clip = clip("goforward.wav");
    glasses.speak(&clip).await;
    assert_eq!(word_errors(&clip.words, &glasses.final_words().await), 0);
    let still_there = livekit.participants(room_name.as_str()).await;
    assert!(still_there.keys().eq(there.keys()), "{there:?}, and later {still_there:?}");
    other.leave().await;
}
