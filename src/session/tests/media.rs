//! Audio sources, the uplink, voice detection and the agent.

use super::*;

#[test]
fn the_microphone_is_asked_for_until_sound_comes() {
    let mut rig = Rig::attached();
    rig.wait(Duration::from_secs(11));
    assert_eq!(rig.told_types(1), ["microphone_state_change"]);
    rig.input(Input::Alive(1)).channel_audio(&QUIET);
    rig.told(1);
    rig.wait(Duration::from_secs(15));
    assert_eq!(rig.told_types(1), Vec::<String>::new());
}

#[test]
fn an_utterance_whose_audio_stops_arriving_is_ended() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    assert!(rig.opened() && !rig.closed());
    rig.told(1);

    rig.wait(AUDIO_STALL_TIMEOUT);

    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::EndUtterance(_))).count(), 1);
    let told = rig.told(1);
    assert_eq!((&told[0]["type"], &told[0]["reason"]), (&json!("speech_ended"), &json!("muted")));
}

#[test]
fn an_utterance_waits_for_the_client_that_brings_its_audio_itself() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(4));
    rig.attach(2, Some(0)).wait(Duration::from_secs(1));
    assert!(!rig.closed());

    rig.channel_audio(&loud()).input(Input::SocketLost(2)).wait(Duration::from_secs(6));
    assert!(rig.closed(), "it does not wait for ever");
}

#[test]
fn another_client_does_not_go_on_in_the_middle_of_a_sentence() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    rig.attach(2, None);
    assert!(rig.closed());
}

#[test]
fn a_microphone_in_the_room_lets_an_agent_that_is_not_there_try_again_at_once() {
    let mut rig = Rig::attached();
    let retried = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::RetryJoin));
    for (state, wanted) in [
        (AgentState::Unreachable, true),
        (AgentState::Joined, false),
        // Another gateway's agent is there: this one does not fight for the place.
        (AgentState::Displaced, false),
    ] {
        rig.input(Input::AgentState(state));
        rig.effects.clear();
        rig.input(Input::MicrophonePublished);
        assert_eq!(retried(&rig), wanted, "{state:?}");
    }
}

/// A client whose own voice detection is trusted, with the agent in its room.
fn trusted() -> Rig {
    let mut rig = Rig::new();
    rig.attach_with(1, r#"{"type":"connection_init","capabilities":{"vad":true,"media":["livekit","ws"]}}"#);
    rig.input(Input::AgentState(AgentState::Joined));
    rig
}

#[test]
fn a_client_with_voice_detection_of_its_own_is_followed_and_told_to_send_only_speech() {
    let mut rig = trusted();
    assert!(rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(false))));
    let told = rig.told(1);
    let wish = told.iter().find(|message| message["type"] == "microphone_state_change").unwrap();
    assert_eq!(wish["bypassVad"], false);
    rig.effects.clear();

    rig.channel_audio(&loud());
    assert!(!rig.opened(), "half a second of speech without its word is not enough");
    rig.say(r#"{"type":"VAD","status":true}"#);
    assert!(rig.opened());
    assert!(rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(true))));
    rig.channel_audio(&QUIET).say(r#"{"type":"VAD","status":false}"#);
    assert!(rig.closed());
    rig.effects.clear();
    rig.wait(client_vad::MIN_SILENCE);
    assert!(rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(false))));

    // The next client of the session has no detection of its own.
    rig.effects.clear();
    rig.attach(2, None);
    assert!(rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(true))));
    rig.channel_audio(&loud());
    assert!(rig.opened());
}

#[test]
fn outside_of_the_rollout_a_client_is_always_listened_to() {
    let mut rig = Rig::with(SessionConfig { client_vad_percent: 0, ..config() });
    rig.attach_with(1, r#"{"type":"connection_init","capabilities":{"vad":true}}"#);
    assert!(!rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(_))));
    let told = rig.told(1);
    let wish = told.iter().find(|message| message["type"] == "microphone_state_change").unwrap();
    assert_eq!(wish["bypassVad"], true);
    rig.channel_audio(&loud());
    assert!(rig.opened());
}

#[test]
fn a_detection_that_stays_open_for_ten_minutes_is_closed() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    for _ in 0..599 {
        rig.input(Input::Alive(1)).channel_audio(&QUIET);
        rig.wait(Duration::from_secs(1));
    }
    rig.told(1);
    for _ in 0..2 {
        rig.input(Input::Alive(1)).channel_audio(&QUIET);
        rig.wait(Duration::from_secs(1));
    }
    let told = rig.told(1);
    let ended = told.iter().find(|message| message["type"] == "speech_ended").unwrap();
    assert_eq!(ended["reason"], "client_vad");
}

#[test]
fn audio_that_comes_back_while_the_client_detects_speech_opens_an_utterance_again() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    rig.channel_audio(&QUIET).wait(AUDIO_STALL_TIMEOUT);
    assert!(rig.closed());
    rig.effects.clear();
    rig.channel_audio(&QUIET);
    assert!(rig.opened());
}

#[test]
fn pre_roll_is_heard_before_the_room_and_does_not_take_its_place() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    rig.told(1);
    rig.effects.clear();
    rig.input(Input::UplinkFrame(1, frame(1, Codec::Pcm16le, &pcm(&[2; 512]), true)));
    rig.room_audio(&[3; 512]);
    assert_eq!(rig.utterance_audio(), [[2; 512], [3; 512]].concat());
    assert!(!rig.closed());
    assert_eq!(rig.told(1)[0]["active"], "livekit");
}

/// 20 ms of silence as an Opus packet.
fn opus_packet() -> Vec<u8> {
    use audiopus::{Application, Channels, SampleRate, coder::Encoder};
    let encoder = Encoder::new(SampleRate::Hz16000, Channels::Mono, Application::Voip).unwrap();
    let mut packet = [0; 400];
    let length = encoder.encode(&[1; 320], &mut packet).unwrap();
    packet[..length].to_vec()
}

#[test]
fn a_takeover_that_is_refused_leaves_the_decoder_of_the_device_that_has_the_session_alone() {
    let mut rig = Rig::attached();
    for socket in 2..=4 {
        rig.attach(socket, None);
    }
    rig.say(r#"{"type":"audio_config","codec":"opus","sampleRate":16000,"channels":1}"#);
    rig.input(Input::UplinkFrame(4, frame(1, Codec::Opus, &opus_packet(), false)));
    rig.told(4);

    rig.attach(5, None);
    assert_eq!(rig.session.socket(), Some(4), "the takeover is refused");
    rig.input(Input::UplinkFrame(4, frame(2, Codec::Opus, &opus_packet(), false)));

    assert_eq!(rig.told(4), [] as [Value; 0], "its Opus is still decoded");
}

#[test]
fn the_audio_config_of_a_socket_that_is_not_attached_changes_nothing() {
    let mut rig = Rig::attached();
    rig.attach(2, None);
    rig.told(2);
    let opus = r#"{"type":"audio_config","codec":"opus","sampleRate":16000,"channels":1}"#;
    for stale in [1, 7] {
        rig.input(Input::ClientMessage(stale, ClientMessage::decode(opus).unwrap()));
    }

    rig.input(Input::UplinkFrame(2, frame(1, Codec::Pcm16le, &pcm(&loud()), false)));

    assert!(rig.opened(), "PCM is still what is decoded");
    assert!(rig.told(2).iter().all(|message| message["type"] != "error"));
}

#[test]
fn a_room_without_sound_is_joined_again_and_then_given_up_for_the_control_channel() {
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Joined));
    rig.told(1);
    rig.wait(audio_watchdog::MAX_GAP);
    assert_eq!(rig.told_types(1), ["livekit_info"]);
    rig.wait(audio_watchdog::MAX_GAP);
    let told: Vec<_> = rig.told(1).into_iter().filter(|message| message["type"] == "media_state").collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["active"], &told[0]["reason"]), (&json!("ws"), &json!("livekit_silent")));
}

#[test]
fn no_audio_is_missed_where_none_is_expected() {
    let asked = |rig: &mut Rig| rig.told_types(1).contains(&"livekit_info".to_owned());
    // A trusted client that detects no speech; an agent that is not there; a client that is not.
    let mut rig = trusted();
    rig.wait(Duration::from_secs(20));
    assert!(!asked(&mut rig));
    rig.say(r#"{"type":"VAD","status":true}"#).wait(audio_watchdog::MAX_GAP);
    assert!(asked(&mut rig), "somebody speaks");
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Unreachable)).wait(Duration::from_secs(20));
    assert!(!asked(&mut rig));
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Joined))
        .input(Input::SocketLost(1))
        .wait(Duration::from_secs(20));
    assert!(!asked(&mut rig));
    // A microphone that is muted sends silence: that is no gap.
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Joined));
    for _ in 0..20 {
        rig.room_audio(&[0; 320]).wait(Duration::from_secs(1));
    }
    assert!(!asked(&mut rig));
}

#[test]
fn where_the_agent_is_not_in_the_room_sound_is_expected_on_the_control_channel() {
    for (news, reason) in
        [(AgentState::Unreachable, "livekit_unreachable"), (AgentState::Displaced, "duplicate_identity")]
    {
        let mut rig = Rig::attached();
        rig.room_audio(&QUIET).input(Input::SourceGone(MediaSource::Livekit));
        rig.told(1);
        rig.input(Input::AgentState(news));
        let told = rig.told(1);
        assert_eq!((&told[0]["active"], &told[0]["reason"]), (&json!("ws"), &json!(reason)));
        rig.input(Input::AgentState(AgentState::Joined));
        assert_eq!(rig.told(1)[0]["active"], "none", "the room may be tried again");
    }
}

#[test]
fn an_agent_in_a_room_without_a_microphone_leaves_and_comes_back_with_the_microphone() {
    let signs: [fn(&mut Rig) -> &mut Rig; 4] = [
        |rig| rig.input(Input::MicrophonePublished),
        |rig| rig.say(r#"{"type":"VAD","status":true}"#),
        |rig| rig.say(r#"{"type":"livekit_init"}"#),
        |rig| rig.attach(2, None),
    ];
    for sign in signs {
        let mut rig = Rig::attached();
        rig.input(Input::AgentState(AgentState::Joined));
        let joined = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::JoinRoom));
        let left = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::LeaveRoom));
        for _ in 0..AGENT_IDLE.as_secs() / 20 {
            assert!(!left(&rig));
            rig.input(Input::Alive(1)).wait(Duration::from_secs(20));
        }
        assert!(left(&rig));
        assert!(rig.told(1).iter().any(|message| message["reason"] == "agent_idle"));
        rig.effects.clear();

        sign(&mut rig);

        assert!(joined(&rig));
    }
}

#[test]
fn a_silent_microphone_keeps_the_agent_in_the_room() {
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Joined));
    for _ in 0..AGENT_IDLE.as_secs() / 10 {
        rig.input(Input::Alive(1)).room_audio(&[0; 320]);
        rig.wait(Duration::from_secs(20));
    }
    assert!(!rig.has(|effect| matches!(effect, Effect::LeaveRoom)));
}

#[test]
fn an_utterance_goes_on_when_its_client_is_back_within_five_seconds() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    let seen = rig.session.downlink.last_seq();
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(4));
    rig.attach(2, Some(seen)).wait(Duration::from_secs(1));
    rig.channel_audio(&QUIET).wait(Duration::from_secs(1));
    assert!(!rig.closed());

    rig.input(Input::SocketLost(2)).wait(Duration::from_secs(5));
    assert!(rig.closed(), "it does not wait for ever");
}

#[test]
fn audio_that_comes_faster_than_it_can_be_spoken_is_dropped_and_the_client_is_told_once_a_second() {
    let mut rig = Rig::attached();
    for _ in 0..60 {
        rig.channel_audio(&[5_000; 16_000]);
    }
    let all = rig.utterance_audio().len();
    rig.told(1);
    rig.effects.clear();

    for _ in 0..20 {
        rig.channel_audio(&[5_000; 16_000]);
    }

    assert!(all > 50 * 16_000, "{all} samples at once are accepted");
    assert!(rig.utterance_audio().is_empty());
    let errors: Vec<_> = rig.told(1).into_iter().filter(|message| message["type"] == "error").collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["code"], "RATE_LIMITED");

    rig.wait(Duration::from_secs(1)).channel_audio(&[5_000; 16_000]);
    let told = rig.told(1);
    assert!(told.iter().all(|message| message["type"] != "error"), "as it is spoken it goes on: {told:?}");
}
