//! Transcripts, turns and responses.

use super::*;

#[test]
fn a_sentence_is_transcribed_answered_spoken_and_remembered() {
    let mut rig = Rig::attached();
    rig.speak("What time is it?");
    let types = rig.told_types(1);
    assert_eq!(types, ["media_state", "speech_started", "speech_ended", "data_stream", "turn_started"]);
    let Some(Effect::Generate(1, prompt)) =
        rig.effects.iter().find(|effect| matches!(effect, Effect::Generate(..)))
    else {
        panic!("{:?}", rig.effects)
    };
    assert_eq!(prompt.system, "Be brief.");
    assert_eq!(prompt.messages, [ChatMessage::user("What time is it?")]);

    rig.llm(1, "It is five.").llm_ends(1);
    assert!(
        rig.has(|effect| matches!(effect, Effect::Synthesize(1, request) if request.text == "It is five."))
    );
    rig.tts(1, 1600).tts_ends(1);
    rig.wait(Duration::from_millis(200));
    assert_eq!(
        rig.told_types(1),
        ["answer_delta", "answer_done", "speech_begin", "speech_finish", "turn_metrics"]
    );
    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::SendBinary(..))).count(), 6);
    assert_eq!(rig.saved(), ["What time is it?", "It is five."]);

    rig.input(Input::TurnSaved(TurnId(1), 2));
    assert_eq!(rig.told(1)[0]["historySeq"], 2);
}

#[test]
fn speaking_over_the_answer_stops_it_and_only_what_was_heard_is_kept() {
    let mut rig = Rig::attached();
    rig.speak("Tell me a story.");
    rig.llm(1, "Once upon a time there was a king. ");
    rig.tts(1, 16_000).wait(Duration::from_millis(500));
    rig.told(1);
    rig.effects.clear();

    rig.start_speech();

    assert!(rig.has(|effect| matches!(effect, Effect::StopLlm)));
    assert!(rig.has(|effect| matches!(effect, Effect::StopTts)));
    assert_eq!(rig.saved(), ["Once upon a time"]);
    assert_eq!(
        rig.told_types(1),
        ["speech_started", "audio_stop_request", "answer_done", "speech_finish", "turn_metrics"]
    );
    rig.llm(1, "late").tts(1, 1600);
    assert_eq!(rig.told_types(1), Vec::<String>::new(), "what comes late from the cut answer is dropped");
}

#[test]
fn an_answer_goes_on_where_it_was_when_the_client_comes_back() {
    let mut rig = Rig::attached();
    rig.speak("Hello.");
    rig.llm(1, "Hello yourself. ").llm_ends(1);
    rig.tts(1, 32_000).tts_ends(1);
    rig.say(r#"{"type":"playhead","generation":1,"playedMs":300}"#);
    rig.wait(Duration::from_millis(500));
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(20));
    rig.effects.clear();

    let seen = rig.session.downlink.last_seq();
    rig.attach(2, Some(seen));

    let first = rig.effects.iter().find_map(|effect| {
        let Effect::SendBinary(2, frame) = effect else { return None };
        crate::protocol::edge_v1::audio::DownlinkFrame::decode(frame.clone()).ok()
    });
    assert_eq!(first.unwrap().position, 300 * 16);
}

#[test]
fn an_interim_never_gets_shorter_and_there_is_one_final() {
    let mut rig = Rig::attached();
    rig.start_speech();
    let utterance = rig.session.recognition.last_utterance();
    rig.told(1);
    for text in ["go", "go for", "go", "go forward"] {
        rig.input(Input::Interim(utterance, text.into()));
    }
    rig.end_speech();
    rig.input(Input::Final(utterance, "Go forward ten meters.".into()));
    rig.input(Input::Final(utterance, "again".into()))
        .input(Input::Interim(utterance, "late interim".into()));

    let texts: Vec<_> = rig
        .told(1)
        .into_iter()
        .filter(|message| message["type"] == "data_stream")
        .map(|message| (message["data"]["text"].clone(), message["data"]["isFinal"].clone()))
        .collect();
    assert_eq!(
        texts,
        [
            (json!("go"), json!(false)),
            (json!("go for"), json!(false)),
            (json!("go forward"), json!(false)),
            (json!("Go forward ten meters."), json!(true)),
        ]
    );
}

#[test]
fn a_recogniser_that_fails_ends_the_utterance_with_an_empty_final_and_the_client_is_told() {
    let mut rig = Rig::attached();
    rig.start_speech().end_speech();
    rig.told(1);
    rig.input(Input::SttFailed(rig.session.recognition.last_utterance(), "too busy".into()));
    let told = rig.told(1);
    assert_eq!(told[0]["type"], "stt_state");
    assert_eq!((&told[1]["data"]["text"], &told[1]["data"]["isFinal"]), (&json!(""), &json!(true)));
    assert_eq!(told.len(), 2, "nothing is answered");
}

#[test]
fn a_transcript_of_the_clients_own_keeps_its_language() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"phone_subscription_update","subscriptions":["transcription:de-DE","transcription:en-US"]}"#);
    rig.say(
        r#"{"type":"local_transcription","text":"Guten Tag.","isFinal":true,"transcribeLanguage":"de-DE"}"#,
    );

    let told = rig.told(1);
    let streams: Vec<_> = told.iter().filter(|message| message["type"] == "data_stream").collect();
    assert_eq!(streams.len(), 1, "{told:?}");
    assert_eq!(streams[0]["streamType"], "transcription:de-DE");
    assert_eq!(streams[0]["data"]["transcribeLanguage"], "de-DE");
    let saved = rig.effects.iter().find_map(|effect| {
        let Effect::Save(HistoryItem::Utterance { language, .. }, _) = effect else { return None };
        Some(language.clone())
    });
    assert_eq!(saved.as_deref(), Some("de-DE"));

    rig.say(r#"{"type":"local_transcription","text":"?","isFinal":true,"transcribeLanguage":"not a tag"}"#);
    assert_eq!(rig.told(1)[0]["code"], "INVALID_REQUEST");
}

#[test]
fn an_answer_is_spoken_in_the_room_only_while_somebody_is_there_to_say_it() {
    for (news, in_room) in [(AgentState::Joined, true), (AgentState::Unreachable, false)] {
        let voice = Some(Voice { rate_hz: 16_000, delivery: Delivery::Room });
        let mut rig = Rig::with(SessionConfig { voice, ..config() });
        rig.attach(1, None).input(Input::AgentState(news)).speak("Hello.");
        rig.effects.clear();

        rig.llm(1, "Hi there.").llm_ends(1);
        rig.tts(1, 320);

        assert_eq!(rig.has(|effect| matches!(effect, Effect::PublishSpeech(_))), in_room);
        assert_eq!(rig.has(|effect| matches!(effect, Effect::SendBinary(..))), !in_room);
        let begin = rig.told(1).into_iter().find(|message| message["type"] == "speech_begin").unwrap();
        assert_eq!(begin["delivery"], if in_room { "room" } else { "ws" });
    }
}
