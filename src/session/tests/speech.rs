//! In what form a response is spoken on the channel.

use super::*;
use crate::protocol::edge_v1::{audio::DownlinkFrame, from_client::SpeechCapabilities};

/// A client's first message, by which it takes these codecs.
fn init(codecs: &[&str], frame_ms: u32) -> ConnectionInit {
    let codecs = codecs.iter().map(|name| (*name).to_owned()).collect();
    let mut init = ConnectionInit::default();
    init.capabilities.speech = SpeechCapabilities { codecs, frame_ms };
    init
}

impl Rig {
    fn attach_taking(&mut self, socket: SocketId, codecs: &[&str], frame_ms: u32) -> &mut Self {
        self.attach_client(socket, Profile::EdgeV1, init(codecs, frame_ms), None)
    }

    /// A response of this many samples at 16 kHz has begun to be spoken.
    fn spoken(&mut self, samples: usize) -> &mut Self {
        self.speak("Hello.").llm(1, "Hello yourself. ").llm_ends(1);
        self.tts(1, samples).tts_ends(1)
    }

    /// The frames to a socket since the last call.
    fn frames(&mut self, socket: SocketId) -> Vec<DownlinkFrame> {
        let mut frames = Vec::new();
        self.effects.retain(|effect| {
            let Effect::SendBinary(to, frame) = effect else { return true };
            assert_eq!(*to, socket);
            frames.push(DownlinkFrame::decode(frame.clone()).unwrap());
            false
        });
        frames
    }

    fn message(&mut self, socket: SocketId, kind: &str) -> Option<Value> {
        self.told(socket).into_iter().find(|message| message["type"] == kind)
    }
}

#[test]
fn a_client_that_takes_opus_is_acknowledged_and_answered_in_it() {
    for (frame_ms, packets) in [(20, 6), (60, 2)] {
        let mut rig = Rig::new();
        rig.attach_taking(1, &["opus", "pcm16le"], frame_ms);
        let ack = rig.message(1, "connection_ack").unwrap();
        assert_eq!(ack["speech"], json!({"codec": "opus", "sampleRate": 24_000, "frameMs": frame_ms}));

        rig.spoken(1600).wait(Duration::from_millis(200));

        let begin = rig.message(1, "speech_begin").unwrap();
        assert_eq!((&begin["codec"], &begin["sampleRate"]), (&json!("opus"), &json!(24_000)));
        let pre_skip = begin["preSkip"].as_u64().unwrap();
        let frames = rig.frames(1);
        assert_eq!(frames.len(), packets);
        let samples = u64::from(frame_ms) * 24;
        let positions: Vec<_> = frames.iter().map(|frame| frame.position / samples).collect();
        assert_eq!(positions, (0..packets as u64).collect::<Vec<_>>());
        let last = frames.last().unwrap();
        assert!(last.end && frames.iter().all(|frame| frame.codec == Codec::Opus));
        let length = last.position + samples - pre_skip - u64::from(last.padding);
        assert_eq!(length, 2400, "100 ms: what is behind them is padding");
        assert_eq!(rig.saved(), ["Hello.", "Hello yourself. "]);
    }
}

#[test]
fn a_client_that_does_not_ask_is_answered_in_pcm_as_ever() {
    let mut rig = Rig::new();
    rig.attach(1, None);
    let ack = rig.message(1, "connection_ack").unwrap();
    assert_eq!(ack["speech"], json!({"codec": "pcm16le", "sampleRate": 16_000, "frameMs": 20}));

    rig.spoken(1600);

    let begin = rig.message(1, "speech_begin").unwrap();
    assert_eq!((&begin["codec"], begin.get("preSkip")), (&json!("pcm16le"), None));
    let frames = rig.frames(1);
    assert!(frames.iter().all(|frame| frame.codec == Codec::Pcm16le && frame.padding == 0));
    let lengths: Vec<_> = frames.iter().map(|frame| frame.payload.len()).collect();
    assert_eq!(lengths, [640, 640, 640, 640, 640, 0], "20 ms, and an empty one as the end");
}

#[test]
fn a_client_whose_wishes_cannot_be_met_is_told_and_gets_pcm() {
    let mut rig = Rig::new();
    rig.attach_taking(1, &["lc3"], 40);

    let told = rig.told(1);
    assert_eq!(told[0]["speech"], json!({"codec": "pcm16le", "sampleRate": 16_000, "frameMs": 20}));
    assert_eq!((&told[1]["type"], &told[1]["code"]), (&json!("error"), &json!("UNSUPPORTED")));
    assert!(told[1]["message"].as_str().unwrap().starts_with("capabilities.speech.codecs: "));
}

#[test]
fn what_is_spoken_in_the_room_is_not_encoded_for_the_channel() {
    let voice = Some(Voice { rate_hz: 16_000, delivery: Delivery::Room });
    let mut rig = Rig::with(SessionConfig { voice, ..config() });
    rig.attach_taking(1, &["opus"], 60).input(Input::AgentState(AgentState::Joined));

    rig.spoken(1600);

    let begin = rig.message(1, "speech_begin").unwrap();
    assert_eq!((&begin["codec"], &begin["sampleRate"]), (&json!("pcm16le"), &json!(16_000)));
    assert!(rig.has(|effect| matches!(effect, Effect::PublishSpeech(samples) if samples.len() == 320)));
}

#[test]
fn a_client_of_opus_that_resumes_gets_the_packets_from_the_one_that_it_was_playing() {
    let mut rig = Rig::new();
    rig.attach_taking(1, &["opus"], 60).spoken(32_000);
    rig.say(r#"{"type":"playhead","generation":1,"playedMs":290}"#).wait(Duration::from_millis(500));
    let before = rig.frames(1);
    let seen = rig.session.downlink.last_seq();
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(20));
    rig.effects.clear();

    let resume = Some(Resume {
        session_id: SessionId::from_u128(7),
        resume_token: rig.session.resume_token.clone(),
        last_server_seq: seen,
        last_audio_seq: 0,
    });
    rig.attach_client(2, Profile::EdgeV1, ConnectionInit { resume, ..init(&["opus"], 60) }, None);

    let again = rig.frames(2);
    assert_eq!(again[0], before[4], "290 ms are within the packet that begins at 240");
    rig.start_speech();
    let saved = rig.effects.iter().find_map(|effect| {
        let Effect::Save(HistoryItem::Response { played_ms, .. }, _) = effect else { return None };
        *played_ms
    });
    assert_eq!(saved, Some(290));
}

#[test]
fn a_client_that_cannot_go_on_with_the_codec_of_a_response_ends_it() {
    for (codecs, goes_on) in [(&["opus"], true), (&["pcm16le"], false)] {
        let mut rig = Rig::new();
        rig.attach_taking(1, &["opus"], 20).spoken(32_000);
        rig.frames(1);

        rig.attach_taking(2, codecs, 20).wait(Duration::from_secs(3));

        let finish = rig.effects.iter().find_map(|effect| {
            let Effect::Save(HistoryItem::Response { finish, .. }, _) = effect else { return None };
            Some(*finish)
        });
        let expected = if goes_on { Finish::Stop } else { Finish::Interrupted };
        assert_eq!(finish, Some(expected), "{codecs:?}");
        assert_eq!(!rig.frames(2).is_empty(), goes_on, "{codecs:?}");
    }
}
