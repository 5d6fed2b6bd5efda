//! Audio during LiveKit's simulated failures and a frozen server.

use std::process::Command;

use livekit::SimulateScenario;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;

use crate::support::{MODES, Mode, Server, Tone, event, expect_clean_tone, expect_silence, read, subscribed};

const RATE: u32 = 16_000;

#[tokio::test(flavor = "multi_thread")]
async fn audio_continues_while_the_signal_connection_is_resumed() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("resume-{mode:?}");
        let mut python = server.python(&name, "python", &["tone", "440"]);
        python.expect_line("published").await;
        let (room, mut events) = server.join(&name, "rust", mode).await;
        let mut stream = NativeAudioStream::new(subscribed(&mut events).await.rtc_track(), RATE as i32, 1);
        expect_clean_tone(&mut stream, RATE, 1, 440.0, 12_000.0).await;

        room.simulate_scenario(SimulateScenario::SignalReconnect).await.unwrap();
        let listening = tokio::spawn(async move {
            // The same stream has to be clean after the resume.
            let meanwhile = read(&mut stream, RATE, 3.0).await;
            expect_clean_tone(&mut stream, RATE, 2, 440.0, 12_000.0).await;
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
        assert!(loud > 15, "{mode:?}: the tone was received in {loud} of 30 windows of 100 ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_resumes_on_a_new_connection_after_a_node_failure() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("node-{mode:?}");
        let mut python = server.python(&name, "python", &["tone", "440"]);
        python.expect_line("published").await;
        let (room, mut events) = server.join(&name, "rust", mode).await;
        subscribed(&mut events).await;

        room.simulate_scenario(SimulateScenario::NodeFailure).await.unwrap();
        let track = subscribed(&mut events).await;

        let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
        expect_clean_tone(&mut stream, RATE, 1, 440.0, 12_000.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_delivers_silence_while_the_server_is_frozen() {
    let server = Server::start().await;
    let mut python = server.python("freeze", "python", &["tone", "440"]);
    python.expect_line("published").await;
    let (_room, mut events) = server.join("freeze", "rust", Mode::Single).await;
    let mut stream = NativeAudioStream::new(subscribed(&mut events).await.rtc_track(), RATE as i32, 1);
    read(&mut stream, RATE, 1.0).await;

    signal(&server, "STOP");
    // The stream delivers in real time, so reading 3 s takes 3 s.
    expect_silence(&mut stream, RATE, 3.0).await;
    signal(&server, "CONT");

    expect_clean_tone(&mut stream, RATE, 1, 440.0, 12_000.0).await;
}

fn signal(server: &Server, name: &str) {
    let done = Command::new("kill").args([format!("-{name}"), server.pid().to_string()]).status().unwrap();
    assert!(done.success());
}
