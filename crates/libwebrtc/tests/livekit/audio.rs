//! Audio in both directions, verified by measurement.

use std::f64::consts::PI;
use std::time::Duration;

use livekit::options::TrackPublishOptions;
use livekit::prelude::*;
use livekit::webrtc::audio_source::native::NativeAudioSource;
use livekit::webrtc::audio_stream::native::NativeAudioStream;
use livekit::webrtc::prelude::{AudioFrame, AudioSourceOptions, RtcAudioSource};
use tokio::task::JoinHandle;

use crate::support::{
    MODES, Mode, Peer, Server, Tone, event, expect_clean_tone, expect_silence, expect_tone, read, subscribed,
};

const RATE: u32 = 16_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_tone_published_by_the_python_sdk_is_received_undistorted() {
    let server = Server::start().await;
    for mode in MODES {
        let room = format!("receive-{mode:?}");
        let mut python = server.python(&room, "python", &["tone", "440"]);
        python.expect_line("published").await;
        let (_room, mut events) = server.join(&room, "rust", mode).await;
        let track = subscribed(&mut events).await;
        let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);

        expect_clean_tone(&mut stream, RATE, 3, 440.0, 12_000.0).await;
    }
}

/// The tolerances are larger than elsewhere because of Chromium's clock and its time stretching.
#[tokio::test(flavor = "multi_thread")]
async fn a_tone_is_received_in_both_directions_between_this_crate_and_a_browser() {
    let server = Server::start().await;

    let mut speaker = server.browser("browser", "speaker", &["tone", "440"]);
    speaker.expect_line("published").await;
    let (_room, mut events) = server.join("browser", "rust", Mode::Single).await;
    let track = subscribed(&mut events).await;
    let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
    expect_tone(&mut stream, RATE, 1, |tone| {
        (tone.hz - 440.0).abs() < 1.0 && (tone.amplitude - 12_000.0).abs() < 600.0 && tone.snr_db > 25.0
    })
    .await;
    drop(speaker);

    let server = Server::start().await;
    let mut listener = server.browser("browser-back", "listener", &["listen"]);
    listener.expect_line("joined").await;
    let (room, _events) = server.join("browser-back", "rust", Mode::Single).await;
    let (_track, publishing) = publish_tone(&room, 48_000, 660.0).await;
    let tone = clean_measurement(&mut listener, 660.0).await;
    publishing.abort();
    assert!((tone.amplitude - 10_000.0).abs() < 500.0, "{tone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tone_is_received_in_both_directions_between_this_crate_and_the_node_sdk() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("node-{mode:?}");
        let mut speaker = server.node(&name, "speaker", &["tone", "440"]);
        speaker.expect_line("published").await;
        let (_room, mut events) = server.join(&name, "rust", mode).await;
        let track = subscribed(&mut events).await;
        let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
        expect_clean_tone(&mut stream, RATE, 2, 440.0, 12_000.0).await;

        let name = format!("node-back-{mode:?}");
        let mut listener = server.node(&name, "listener", &["listen"]);
        listener.expect_line("joined").await;
        let (room, _events) = server.join(&name, "rust", mode).await;
        let (_track, publishing) = publish_tone(&room, 24_000, 660.0).await;
        let tone = clean_measurement(&mut listener, 660.0).await;
        publishing.abort();
        assert!((tone.amplitude - 10_000.0).abs() < 300.0, "{mode:?}: {tone:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_different_rates_and_channels_deliver_the_same_tone() {
    let server = Server::start().await;
    let mut python = server.python("formats", "python", &["tone", "440"]);
    python.expect_line("published").await;
    let (_room, mut events) = server.join("formats", "rust", Mode::Single).await;
    let track = subscribed(&mut events).await;

    for (rate, channels) in [(8_000, 1), (24_000, 1), (48_000, 2), (44_100, 1), (22_050, 2)] {
        let mut stream = NativeAudioStream::new(track.rtc_track(), rate, channels);
        let mut windows = Vec::new();
        while !windows.last().is_some_and(|tone: &Tone| tone.is_clean(440.0, 12_000.0)) {
            let pcm = read(&mut stream, rate as u32 * channels as u32, 1.0).await;
            let left: Vec<i16> = pcm.iter().step_by(channels as usize).copied().collect();
            windows.push(Tone::of(&left, rate as u32));
            assert!(windows.len() < 30, "{rate} Hz, {channels} channels: {windows:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_receives_a_published_tone_and_detects_the_active_speaker() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("publish-{mode:?}");
        let mut python = server.python(&name, "python", &["listen"]);
        python.expect_line("joined").await;
        let (room, _events) = server.join(&name, "rust", mode).await;
        let (track, publishing) = publish_tone(&room, 24_000, 660.0).await;

        assert_eq!(python.expect_line("speaking").await, ["rust"]);
        let tone = clean_measurement(&mut python, 660.0).await;
        assert!((tone.amplitude - 10_000.0).abs() < 300.0, "{mode:?}: {tone:?}");

        let publication = room.local_participant().unpublish_track(&track).await.unwrap();
        assert_eq!(python.expect_line("unpublished").await, [publication.sid().to_string()]);
        publishing.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_muted_track_delivers_silence_until_it_is_unmuted() {
    let server = Server::start().await;
    let (sender, _sender_events) = server.join("mute", "sender", Mode::Single).await;
    let (track, _speaking) = publish_tone(&sender, 48_000, 440.0).await;
    let publication = sender.local_participant().get_track_publication(&track).unwrap();
    let (_receiver, mut events) = server.join("mute", "receiver", Mode::Single).await;
    let mut stream = NativeAudioStream::new(subscribed(&mut events).await.rtc_track(), RATE as i32, 1);
    expect_clean_tone(&mut stream, RATE, 1, 440.0, 10_000.0).await;

    publication.mute();
    event(&mut events, "the mute", |event| matches!(event, RoomEvent::TrackMuted { .. }).then_some(())).await;
    expect_silence(&mut stream, RATE, 1.0).await;
    publication.unmute();
    event(&mut events, "the unmute", |event| matches!(event, RoomEvent::TrackUnmuted { .. }).then_some(()))
        .await;

    expect_clean_tone(&mut stream, RATE, 1, 440.0, 10_000.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tracks_that_reuse_a_media_section_are_received() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("reuse-{mode:?}");
        let (_listener, mut events) = server.join(&name, "listener", mode).await;
        for round in 0..4 {
            let hz = 300.0 + 100.0 * f64::from(round);
            let (speaker, _events) = server.join(&name, &format!("speaker-{round}"), mode).await;
            let (_, publishing) = publish_tone(&speaker, 48_000, hz).await;
            let mut stream =
                NativeAudioStream::new(subscribed(&mut events).await.rtc_track(), RATE as i32, 1);

            expect_clean_tone(&mut stream, RATE, 1, hz, 10_000.0).await;

            publishing.abort();
            speaker.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_a_source_drops_the_queued_audio() {
    let server = Server::start().await;
    let (sender, _sender_events) = server.join("clear", "sender", Mode::Single).await;
    let source = NativeAudioSource::new(AudioSourceOptions::default(), 48_000, 1, 5_000);
    publish(&sender, &source).await;
    let (_receiver, mut events) = server.join("clear", "receiver", Mode::Single).await;
    let mut stream = NativeAudioStream::new(subscribed(&mut events).await.rtc_track(), RATE as i32, 1);
    source.capture_frame(&tone_frame(48_000, 440.0, 4_800 * 40, &mut 0.0)).await.unwrap();
    read(&mut stream, RATE, 0.5).await;

    source.clear_buffer();

    // Four seconds were queued. Packets in flight and the fade-out are a fraction of a second.
    let before_s = expect_silence(&mut stream, RATE, 1.0).await;
    assert!(before_s < 2.0, "{before_s} s of audio were received after the queue was cleared");
}

#[tokio::test(flavor = "multi_thread")]
async fn capture_frame_limits_the_writer_to_real_time() {
    let source = NativeAudioSource::new(AudioSourceOptions::default(), 48_000, 1, 200);
    let start = tokio::time::Instant::now();

    for _ in 0..100 {
        source.capture_frame(&AudioFrame::new(48_000, 1, 480)).await.unwrap();
    }

    // One second was written; up to 200 ms of it are queued.
    let passed = start.elapsed();
    assert!(passed > Duration::from_millis(700), "{passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_are_not_implemented_fail_with_the_reason() {
    let server = Server::start().await;
    let (room, _events) = server.join("unavailable", "rust", Mode::Single).await;

    let microphone = LocalAudioTrack::create_audio_track("microphone", RtcAudioSource::Device);
    let error = room
        .local_participant()
        .publish_track(LocalTrack::Audio(microphone), TrackPublishOptions::default())
        .await
        .unwrap_err();
    assert!(causes(&error).contains("microphones is not available"), "{error:?}");

    let options = livekit::e2ee::E2eeOptions {
        encryption_type: livekit::e2ee::EncryptionType::Gcm,
        key_provider: livekit::e2ee::key_provider::KeyProvider::with_shared_key(
            livekit::e2ee::key_provider::KeyProviderOptions::default(),
            b"secret".to_vec(),
        ),
    };
    for mode in MODES {
        let mut encrypted = RoomOptions::default();
        encrypted.encryption = Some(livekit::e2ee::E2eeOptions {
            encryption_type: options.encryption_type,
            key_provider: options.key_provider.clone(),
        });
        encrypted.single_peer_connection = mode == Mode::Single;
        encrypted.join_retries = 0;
        let Err(error) = server.join_with("encrypted", "rust", encrypted).await else {
            panic!("{mode:?}: an encrypted room was joined without encryption");
        };
        assert!(causes(&error).contains("end-to-end encryption is not available"), "{error:?}");
    }
}

/// Publishes a tone of amplitude 10,000 until the returned task is aborted.
pub async fn publish_tone(room: &Room, rate: u32, hz: f64) -> (TrackSid, JoinHandle<()>) {
    let source = NativeAudioSource::new(AudioSourceOptions::default(), rate, 1, 100);
    let sid = publish(room, &source).await;
    let publishing = tokio::spawn(async move {
        let mut angle = 0.0;
        loop {
            let frame = tone_frame(rate, hz, rate / 100, &mut angle);
            source.capture_frame(&frame).await.unwrap();
        }
    });
    (sid, publishing)
}

async fn publish(room: &Room, source: &NativeAudioSource) -> TrackSid {
    let track = LocalAudioTrack::create_audio_track("tone", RtcAudioSource::Native(source.clone()));
    let options = TrackPublishOptions { source: TrackSource::Microphone, ..TrackPublishOptions::default() };
    room.local_participant().publish_track(LocalTrack::Audio(track), options).await.unwrap().sid()
}

fn tone_frame(rate: u32, hz: f64, samples: u32, angle: &mut f64) -> AudioFrame<'static> {
    let mut frame = AudioFrame::new(rate, 1, samples);
    for sample in frame.data.to_mut() {
        *sample = (10_000.0 * angle.sin()) as i16;
        *angle = (*angle + 2.0 * PI * hz / f64::from(rate)) % (2.0 * PI);
    }
    frame
}

/// The first window in which another participant measures a clean tone. Earlier windows may contain the start of the
/// tone, or time stretching if the machine is overloaded.
async fn clean_measurement(listener: &mut Peer, hz: f64) -> Tone {
    let mut windows = Vec::new();
    for _ in 0..15 {
        let tone = parse_measurement(&listener.expect_line("measured").await);
        if (tone.hz - hz).abs() < 1.0 && tone.snr_db > 20.0 {
            return tone;
        }
        windows.push(tone);
    }
    panic!("{hz} Hz was not received: {windows:?}")
}

fn parse_measurement(words: &[String]) -> Tone {
    let value = |place: usize| words[place].parse().unwrap();
    Tone { hz: value(0), amplitude: value(1), snr_db: value(2) }
}

/// The messages of an error and its sources.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
