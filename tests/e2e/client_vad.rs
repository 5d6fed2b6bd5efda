//! Who decides that somebody speaks: the client or the gateway. And who is in the room for it.

use june_edge::protocol::{
    FromClient, ToClient,
    edge_v1::{
        from_client::{Capabilities, ConnectionInit, Vad},
        to_client::{MediaReason, MediaSource},
    },
};

use crate::support::{Glasses, June, LivekitServer, Publisher, clip, free_port, word_errors};

fn with_vad(vad: bool) -> ConnectionInit {
    ConnectionInit {
        capabilities: Capabilities { vad, ..Capabilities::default() },
        ..ConnectionInit::default()
    }
}

async fn say_vad(glasses: &mut Glasses, status: bool) {
    glasses.channel.send(&FromClient::Vad(Vad { status, audio_seq: None })).await.unwrap();
}

#[actix_web::test]
async fn the_first_word_is_there_although_the_client_says_late_that_somebody_speaks() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let clip = clip("goforward.wav");

    for (vad, percent_of_the_clip) in [(true, 30), (true, 60), (false, 60)] {
        let session = june.session(&format!("ann-{vad}-{percent_of_the_clip}")).await;
        let mut glasses = Glasses::attach(session, with_vad(vad)).await;
        let (before, after) = clip.samples.split_at(clip.samples.len() * percent_of_the_clip / 100);

        // On one channel order is order: no need to take the time of speaking.
        glasses.send(before).await;
        say_vad(&mut glasses, true).await;
        glasses.send(after).await;
        say_vad(&mut glasses, false).await;

        let words = glasses.final_words().await;
        assert_eq!(word_errors(&clip.words, &words), 0, "{vad} {percent_of_the_clip}: {words}");
    }
}

#[actix_web::test]
async fn the_agent_hears_the_room_of_a_client_that_decides_only_while_somebody_speaks() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = Glasses::attach(june.session("ann").await, with_vad(true)).await;
    glasses.agent().await;
    let room = glasses.ack.livekit.clone().unwrap();
    let mut publisher = Publisher::join(&room.url, &room.token, "mic").await;
    let (unheard, heard) = (clip("something.wav"), clip("goforward.wav"));

    publisher.speak(&unheard).await;
    say_vad(&mut glasses, true).await;
    glasses.media(|active, _| active == MediaSource::Livekit).await;
    publisher.speak(&heard).await;
    say_vad(&mut glasses, false).await;

    assert_eq!(word_errors(&heard.words, &glasses.final_words().await), 0);
    glasses.media(|active, reason| active == MediaSource::None && reason == MediaReason::Silent).await;
    let history = june.history(&glasses.session).await;
    let said = history.iter().filter(|line| line["kind"] == "utterance").count();
    assert_eq!(said, 1, "{history:?}");
}

#[actix_web::test]
async fn the_agent_leaves_a_room_without_a_microphone_and_comes_back_with_it() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::with(&livekit, data.path(), port, &[("AGENT_IDLE_MS", "1000")]).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    glasses.media(|_, reason| reason == MediaReason::AgentIdle).await;

    let room = glasses.ack.livekit.clone().unwrap();
    let mut publisher = Publisher::join(&room.url, &room.token, "mic").await;

    glasses.media(|active, _| active == MediaSource::Livekit).await;
    let clip = clip("goforward.wav");
    publisher.begin(&clip);
    assert_eq!(word_errors(&clip.words, &glasses.final_words().await), 0);
    let started = |message: &ToClient| matches!(message, ToClient::TurnSaved { .. }).then_some(());
    glasses.wait_for_message(started).await;
}
