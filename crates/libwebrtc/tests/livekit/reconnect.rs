//! What LiveKit's own scenarios of trouble do to the sound.

use std::process::Command;

use livekit::SimulateScenario;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;

use crate::support::{MODES, Mode, Server, Tone, event, falls_silent, hears_cleanly, read, subscribed};

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
        hears_cleanly(&mut stream, RATE, 1, 440.0, 12_000.0).await;

        room.simulate_scenario(SimulateScenario::SignalReconnect).await.unwrap();
        let listening = tokio::spawn(async move {
            // What is heard meanwhile, and that it is the same stream that is clean afterwards.
            let meanwhile = read(&mut stream, RATE, 3.0).await;
            hears_cleanly(&mut stream, RATE, 2, 440.0, 12_000.0).await;
            meanwhile
        });
        event(&mut events, "the reconnect", |event| match event {
            RoomEvent::TrackUnsubscribed { .. } => panic!("{mode:?}: the track was lost"),
            event => matches!(event, RoomEvent::Reconnected).then_some(()),
        })
        .await;
        let meanwhile = listening.await.unwrap();

        let windows = meanwhile.chunks(RATE as usize / 10).map(|window| Tone::of(window, RATE).amplitude);
        let loud = windows.filter(|amplitude| *amplitude > 10_000.0).count();
        assert!(loud > 15, "{mode:?}: the tone was heard in {loud} of 30 tenths of a second");
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
        hears_cleanly(&mut stream, RATE, 1, 440.0, 12_000.0).await;
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
    falls_silent(&mut stream, RATE, 3.0).await;
    signal(&server, "CONT");

    hears_cleanly(&mut stream, RATE, 1, 440.0, 12_000.0).await;
}

fn signal(server: &Server, name: &str) {
    let done = Command::new("kill").args([format!("-{name}"), server.pid().to_string()]).status().unwrap();
    assert!(done.success());
}
