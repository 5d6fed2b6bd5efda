//! What LiveKit's own scenarios of trouble do to the sound.

use std::process::Command;
use std::time::Duration;

use livekit::SimulateScenario;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;

use crate::support::{MODES, Mode, Server, Tone, event, read, subscribed};

const RATE: u32 = 16_000;

#[tokio::test(flavor = "multi_thread")]
async fn sound_goes_on_while_the_signal_connection_is_resumed() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("resume-{mode:?}");
        let mut python = server.python(&name, "python", &["tone", "440"]);
        python.says("published").await;
        let (room, mut events) = server.join(&name, "rust", mode).await;
        let mut stream = NativeAudioStream::new(subscribed(&mut events).await.rtc_track(), RATE as i32, 1);
        read(&mut stream, RATE, 1.0).await;

        room.simulate_scenario(SimulateScenario::SignalReconnect).await.unwrap();
        let listening = tokio::spawn(async move {
            let pcm = read(&mut stream, RATE, 5.0).await;
            (pcm, stream)
        });
        event(&mut events, "the reconnect", |event| matches!(event, RoomEvent::Reconnected).then_some(()))
            .await;
        let (pcm, _stream) = listening.await.unwrap();

        for second in pcm.chunks(RATE as usize) {
            let tone = Tone::of(second, RATE);
            assert!(tone.is_clean(440.0, 12_000.0), "{mode:?}: {tone:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_comes_back_on_a_new_connection_when_the_node_fails() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("node-{mode:?}");
        let mut python = server.python(&name, "python", &["tone", "440"]);
        python.says("published").await;
        let (room, mut events) = server.join(&name, "rust", mode).await;
        subscribed(&mut events).await;

        room.simulate_scenario(SimulateScenario::NodeFailure).await.unwrap();
        let track = subscribed(&mut events).await;

        let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
        read(&mut stream, RATE, 0.5).await;
        let tone = Tone::of(&read(&mut stream, RATE, 1.0).await, RATE);
        assert!(tone.is_clean(440.0, 12_000.0), "{mode:?}: {tone:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_freezes_for_seconds_is_bridged_by_silence() {
    let server = Server::start().await;
    let mut python = server.python("freeze", "python", &["tone", "440"]);
    python.says("published").await;
    let (_room, mut events) = server.join("freeze", "rust", Mode::Single).await;
    let mut stream = NativeAudioStream::new(subscribed(&mut events).await.rtc_track(), RATE as i32, 1);
    read(&mut stream, RATE, 1.0).await;

    signal(&server, "STOP");
    // The stream paces itself: it is the clock here.
    read(&mut stream, RATE, 1.0).await;
    let frozen = read(&mut stream, RATE, 3.0).await;
    signal(&server, "CONT");
    tokio::time::timeout(Duration::from_secs(20), async {
        while !Tone::of(&read(&mut stream, RATE, 0.5).await, RATE).is_clean(440.0, 12_000.0) {}
    })
    .await
    .expect("the tone did not come back");

    assert!(frozen.iter().all(|sample| *sample == 0));
}

fn signal(server: &Server, name: &str) {
    let done = Command::new("kill").args([format!("-{name}"), server.pid().to_string()]).status().unwrap();
    assert!(done.success());
}
