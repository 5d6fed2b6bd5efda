//! The same session, on a channel of the `mentra` profile.

use std::collections::BTreeSet;

use super::*;
use crate::session::connection::MALFORMED_LIMIT;

impl Rig {
    /// A phone is attached, and its acknowledgement told.
    fn phone() -> Self {
        let mut rig = Self::new();
        rig.attach_as(Profile::Mentra, 1, None);
        rig.wait(MENTRA_SETTLE_TIME);
        rig.effects.clear();
        rig
    }

    fn phone_says(&mut self, text: &str) -> &mut Self {
        let said = Profile::Mentra.decode(text).unwrap();
        let socket = self.session.socket().unwrap();
        self.input(Input::ClientMessage(socket, said))
    }

    /// The clips that are to be played.
    fn clips(&self) -> Vec<String> {
        let clips = self.effects.iter().filter_map(|effect| {
            let Effect::PlayClip { request_id, .. } = effect else { return None };
            Some(request_id.clone())
        });
        clips.collect()
    }

    /// A typed turn is not of this profile; a transcription of the client's own is.
    fn ask(&mut self) -> &mut Self {
        self.phone_says(
            r#"{"type":"local_transcription","text":"Tell me.","isFinal":true,"provider":"phone"}"#,
        );
        self.llm(1, "One. ").llm(1, "Two.");
        self.tts(1, 16_000).tts_ends(1)
    }
}

#[test]
fn only_names_that_such_clients_know_are_told_and_none_has_a_number() {
    let mut rig = Rig::new();
    rig.attach_as(Profile::Mentra, 1, None);
    rig.phone_says(r#"{"type":"phone_subscription_update","subscriptions":["transcription:en-US"]}"#);
    rig.speak("Good morning.");
    rig.llm(1, "Hello.").llm_ends(1);
    rig.input(Input::AgentState(AgentState::Joined)).wait(MENTRA_SETTLE_TIME);

    let told = rig.told(1);
    let types: BTreeSet<&str> = told.iter().map(|message| message["type"].as_str().unwrap()).collect();
    let expected =
        BTreeSet::from(["connection_ack", "microphone_state_change", "data_stream", "display_event"]);
    assert_eq!(types, expected);
    assert!(told.iter().all(|message| message.get("seq").is_none()), "{told:?}");
    let shown = told.iter().find(|message| message["type"] == "display_event").unwrap();
    assert_eq!(shown["layout"], json!({"layoutType": "text_wall", "text": "Hello."}));
    assert_eq!(shown["view"], "main");
}

#[test]
fn the_acknowledgement_comes_at_once_and_again_and_the_microphone_after_each() {
    let mut rig = Rig::new();
    rig.attach_as(Profile::Mentra, 1, None);
    assert_eq!(rig.told_types(1), ["connection_ack"]);
    rig.wait(MENTRA_SETTLE_TIME);
    let told = rig.told(1);
    assert_eq!(told.len(), 1);
    let microphone = &told[0];
    assert_eq!(microphone["type"], "microphone_state_change");
    assert_eq!(
        (&microphone["isMicrophoneEnabled"], &microphone["requiredData"]),
        (&json!(true), &json!(["pcm"]))
    );
    assert_eq!(
        (&microphone["bypassVad"], &microphone["userSession"]["userId"]),
        (&json!(true), &json!("john"))
    );
    assert_eq!(microphone.get("version"), None);

    rig.phone_says(r#"{"type":"connection_init"}"#);
    let again = rig.told(1);
    assert_eq!(again[0]["type"], "connection_ack");
    assert!(again[0]["livekit"]["token"].is_string(), "with a fresh token");
    assert_eq!(rig.session.connection.epoch(), 1, "nothing starts again");
    rig.wait(MENTRA_SETTLE_TIME);
    assert_eq!(rig.told_types(1), ["microphone_state_change"]);
}

#[test]
fn what_cannot_be_read_is_passed_over() {
    let mut rig = Rig::phone();
    for _ in 0..3 * MALFORMED_LIMIT {
        rig.input(Input::Malformed(1, DecodeError::NoType));
    }
    assert_eq!(rig.told(1), [] as [Value; 0]);
    assert_eq!(rig.session.socket(), Some(1));
}

#[test]
fn voice_detection_of_the_phones_own_opens_and_ends_an_utterance_in_every_way_it_is_written() {
    let mut rig = Rig::phone();
    for text in [r#"{"type":"VAD","status":"true"}"#, r#"{"type":"vad","status":true}"#] {
        rig.effects.clear();
        rig.phone_says(text);
        assert!(rig.opened(), "{text}");
        rig.channel_audio(&QUIET).phone_says(r#"{"type":"VAD","status":"false"}"#);
        assert!(rig.closed(), "{text}");
    }
}

#[test]
fn glasses_that_are_gone_for_more_than_a_moment_have_their_microphone_turned_off() {
    let mut rig = Rig::phone();
    rig.phone_says(r#"{"type":"glasses_connection_state","modelName":"G1","status":"DISCONNECTED","wifi":{"connected":null}}"#);
    let forwarded = rig.forwarded();
    assert_eq!(
        (&forwarded[0]["status"], &forwarded[0]["wifi"]),
        (&json!("DISCONNECTED"), &json!({"connected": null}))
    );
    assert_eq!(rig.told(1), [] as [Value; 0]);
    rig.wait(microphone_control::HOLD_DOWN);
    let off = rig.told(1);
    assert_eq!((&off[0]["isMicrophoneEnabled"], &off[0]["requiredData"]), (&json!(false), &json!([])));

    rig.phone_says(r#"{"type":"glasses_connection_state","modelName":"G1","status":"RECONNECTED"}"#);
    assert_eq!(rig.told(1)[0]["isMicrophoneEnabled"], true);
}

#[test]
fn an_answer_is_played_in_clips_and_the_next_one_when_the_client_has_played_one() {
    let mut rig = Rig::phone();
    rig.ask();
    assert_eq!(rig.clips(), ["june-1-1"]);
    rig.tts(1, 16_000).tts_ends(1);
    rig.llm_ends(1).tts_ends(1);
    rig.effects.clear();

    rig.phone_says(r#"{"type":"audio_play_response","requestId":"june-1-1","success":true,"error":null,"duration":1000.5}"#);
    assert_eq!(rig.clips(), ["june-1-2"]);
    rig.phone_says(r#"{"type":"audio_play_response","requestId":"june-1-2","success":true}"#);
    assert!(rig.saved().iter().any(|line| line.contains("One. Two.")), "{:?}", rig.saved());
    assert_eq!(rig.forwarded(), [] as [Value; 0], "it was ours");

    rig.phone_says(r#"{"type":"audio_play_response","requestId":"a-consumers","success":true}"#);
    assert_eq!(rig.forwarded().len(), 1);
}

#[test]
fn speaking_over_a_clip_stops_it() {
    let mut rig = Rig::phone();
    rig.ask();
    rig.wait(Duration::from_millis(500)).effects.clear();

    rig.start_speech();

    let types = rig.told_types(1);
    assert!(types.contains(&"audio_stop_request".to_owned()), "{types:?}");
    assert!(rig.has(|effect| matches!(effect, Effect::DropClips)));
}

#[test]
fn a_transcription_of_the_clients_own_keeps_its_provider() {
    let mut rig = Rig::phone();
    rig.phone_says(
        r#"{"type":"phone_subscription_update","subscriptions":["transcription:en-US?hints=ja"]}"#,
    );
    rig.phone_says(r#"{"type":"local_transcription","text":"Tell me.","isFinal":true,"provider":"phone"}"#);
    let told = rig.told(1);
    let stream = told.iter().find(|message| message["type"] == "data_stream").unwrap();
    assert_eq!(stream["streamType"], "transcription:en-US?hints=ja");
    assert_eq!((&stream["data"]["provider"], &stream["data"]["isFinal"]), (&json!("phone"), &json!(true)));
    assert!(rig.has(|effect| matches!(effect, Effect::ForwardStream(_))));
}

#[test]
fn a_client_that_wants_no_stream_gets_none() {
    let mut rig = Rig::phone();
    rig.phone_says(r#"{"type":"local_transcription","text":"Tell me.","isFinal":false}"#);
    assert_eq!(rig.told(1), [] as [Value; 0]);
}

#[test]
fn the_older_phone_is_closed_with_a_code_that_it_knows() {
    let mut rig = Rig::phone();
    rig.attach_as(Profile::Mentra, 2, None);
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::Normal, _))));
    assert_eq!(rig.told(1), [] as [Value; 0]);
}

#[test]
fn who_comes_back_with_the_other_profile_is_not_told_that_nothing_was_missed() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"say","text":"Hello"}"#);
    let last = rig.session.downlink.last_seq();
    rig.attach_as(Profile::Mentra, 2, None);
    rig.ask();
    rig.effects.clear();

    rig.attach(3, Some(last));

    assert_eq!(rig.told(3)[0]["resumed"], false);
}

#[test]
fn a_phone_that_lost_its_connection_goes_on_hearing_where_it_was() {
    let mut rig = Rig::phone();
    rig.ask();
    rig.wait(Duration::from_millis(400));
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(5)).effects.clear();

    rig.attach_as(Profile::Mentra, 2, None);

    let left = rig.effects.iter().find_map(|effect| {
        let Effect::PlayClip { socket: 2, samples, .. } = effect else { return None };
        Some(samples.len())
    });
    assert_eq!(left, Some(16_000 - 6_400));
}

#[test]
fn a_phone_whose_token_ends_is_told_so_and_closed_by_a_code_that_it_knows() {
    let mut rig = Rig::phone();
    let token = TokenEnd {
        at: rig.now + Duration::from_secs(1),
        unix_s: STARTED_MS / 1000 + 1,
        renewable: true,
        until: None,
    };
    rig.attach_client(2, Profile::Mentra, ConnectionInit::default(), Some(token));
    rig.told(2);
    rig.wait(Duration::from_secs(1));

    assert_eq!(rig.told_types(2), ["microphone_state_change", "auth_error"]);
    assert!(rig.has(|effect| matches!(effect, Effect::Close(2, Close::Policy, _))));
}
