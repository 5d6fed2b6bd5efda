//! Options of a session: what is asked for, and what follows.

use super::*;
use crate::{
    providers::{stt::SttRequest, tts::SpeechRequest},
    session::options::tests::offer,
};

fn rig() -> Rig {
    let mut rig = Rig::with(SessionConfig { offer: offer(), ..config() });
    rig.attach(1, None);
    rig.effects.clear();
    rig
}

fn configure<'a>(rig: &'a mut Rig, options: &Value) -> &'a mut Rig {
    rig.say(&json!({"type": "configure_session", "id": "c1", "options": options}).to_string())
}

/// What is said about an utterance in `mode`, and what is done about it.
fn effects_of_a_turn(rig: &mut Rig) -> (Vec<String>, bool) {
    rig.effects.clear();
    rig.speak("What time is it?");
    let types = rig.told_types(1);
    (types, rig.has(|effect| matches!(effect, Effect::Generate(..) | Effect::Synthesize(..))))
}

#[test]
fn options_that_change_are_answered_with_those_in_force_and_kept() {
    let mut rig = rig();

    configure(&mut rig, &json!({"language": "de", "instructions": "Be kind."}));
    let told = rig.told(1);
    configure(&mut rig, &json!({"language": null, "voice": "joe"}));

    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0],
        json!({
            "type": "session_configured", "replyTo": "c1",
            "options": {
                "language": "de", "instructions": "Be kind.", "mode": "conversation",
                "stt": ["deepgram", "moonshine"], "llm": ["echo"],
            },
        })
    );
    let kept: Vec<_> = rig
        .effects
        .iter()
        .filter_map(
            |effect| if let Effect::Configured(options) = effect { Some(json!(options)) } else { None },
        )
        .collect();
    assert_eq!(
        kept,
        [
            json!({"language": "de", "instructions": "Be kind."}),
            json!({"instructions": "Be kind.", "voice": "joe"}),
        ]
    );
    rig.attach(2, None);
    assert_eq!(rig.told(2)[0]["options"]["voice"], "joe", "a client that attaches is told");
}

#[test]
fn an_option_that_is_not_valid_changes_nothing() {
    let mut rig = rig();

    configure(&mut rig, &json!({"mode": "captions", "languge": "de"}));
    configure(&mut rig, &json!({"mode": "captions", "language": "fr"}));

    let told = rig.told(1);
    assert_eq!(told.len(), 2);
    for (error, reason) in told.iter().zip(["languge: no such option; ", "language: listener does not "]) {
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("INVALID_REQUEST")));
        assert_eq!(error["replyTo"], "c1");
        assert!(error["message"].as_str().unwrap().starts_with(reason), "{error}");
    }
    assert!(!rig.has(|effect| matches!(effect, Effect::Configured(_))));
    assert!(effects_of_a_turn(&mut rig).1, "it is still a conversation");
}

#[test]
fn options_may_change_ten_times_at_once_and_then_once_a_second() {
    let limits = Limits::new(&crate::config::LimitsConfig {
        options_by_user: 60,
        ..crate::config::LimitsConfig::unlimited()
    });
    let mut rig = Rig::with(SessionConfig { offer: offer(), limits, ..config() });
    rig.attach(1, None);
    rig.told(1);

    for _ in 0..11 {
        configure(&mut rig, &json!({"mode": "captions"}));
    }

    let told = rig.told(1);
    assert_eq!(told[9]["type"], "session_configured");
    assert_eq!((&told[10]["code"], &told[10]["retryAfterMs"]), (&json!("RATE_LIMITED"), &json!(1000)));
    rig.wait(Duration::from_secs(1));
    assert_eq!(configure(&mut rig, &json!({"mode": "captions"})).told_types(1), ["session_configured"]);
}

#[test]
fn the_options_are_in_the_requests_to_the_providers() {
    let mut rig = rig();
    configure(
        &mut rig,
        &json!({"language": "de", "vocabulary": ["June"], "instructions": "Be kind.", "voice": "ann"}),
    );

    rig.speak("Wie geht es?").llm(1, "Gut.").llm_ends(1);

    let german = Language::parse("de").unwrap();
    let transcription =
        SttRequest { language: SpokenLanguage::Known(german.clone()), vocabulary: vec!["June".into()] };
    assert!(rig.has(|effect| matches!(effect, Effect::Transcribe(_, request) if *request == transcription)));
    assert!(rig.has(|effect| matches!(effect, Effect::Generate(1, prompt) if prompt.system == "Be kind.")));
    let speech = SpeechRequest { text: "Gut.".into(), language: Some(german), voice: Some("ann".into()) };
    assert!(rig.has(|effect| matches!(effect, Effect::Synthesize(1, request) if *request == speech)));
    assert!(rig.has(|effect| matches!(
        effect,
        Effect::Save(HistoryItem::Utterance { language, .. }, _) if language == "de"
    )));
}

#[test]
fn the_language_that_was_heard_is_in_messages_and_in_the_history() {
    let mut rig = rig();
    configure(&mut rig, &json!({"language": "auto", "languageHints": ["en-US", "de-AT"]}));
    rig.start_speech().end_speech();
    rig.told(1);
    let utterance = rig.session.recognition.last_utterance();
    let heard =
        |text: &str| Transcript { language: Some(Language::parse("de").unwrap()), ..Transcript::text(text) };

    rig.input(Input::Interim(utterance, heard("Guten"))).input(Input::Final(utterance, heard("Guten Tag.")));

    let told = rig.told(1);
    for message in told.iter().filter(|message| message["type"] == "data_stream") {
        assert_eq!(message["streamType"], "transcription:de-AT");
        assert_eq!(message["data"]["transcribeLanguage"], "de-AT");
    }
    assert!(rig.has(|effect| matches!(
        effect,
        Effect::Save(HistoryItem::Utterance { language, .. }, _) if language == "de-AT"
    )));
}

#[test]
fn captions_are_told_and_saved_and_nothing_is_answered() {
    let mut rig = rig();
    configure(&mut rig, &json!({"mode": "captions"})).told(1);

    for _ in 0..500 {
        let (mut types, answered) = effects_of_a_turn(&mut rig);
        types.retain(|kind| kind != "media_state");
        assert_eq!(types, ["speech_started", "speech_ended", "data_stream"]);
        assert!(!answered);
        assert_eq!(rig.saved(), ["What time is it?"]);
        rig.wait(Duration::from_secs(7)).say(r#"{"type":"pong"}"#);
    }
    configure(&mut rig, &json!({"mode": "conversation"})).told(1);
    let (_, answered) = effects_of_a_turn(&mut rig);

    assert!(answered);
    let prompt = rig.effects.iter().find_map(|effect| {
        if let Effect::Generate(1, prompt) = effect { Some(prompt.messages.len()) } else { None }
    });
    assert_eq!(prompt, Some(1), "the captions are not part of the turn");
}

#[test]
fn a_line_that_is_typed_in_captions_is_refused() {
    let mut rig = rig();
    configure(&mut rig, &json!({"mode": "captions"})).told(1);

    rig.say(r#"{"type":"say","text":"Hello","id":"s1"}"#);

    let told = rig.told(1);
    assert_eq!((&told[0]["code"], &told[0]["replyTo"]), (&json!("SESSION_ERROR"), &json!("s1")));
    assert_eq!(rig.saved(), Vec::<String>::new());
}

#[test]
fn an_answer_that_is_being_given_is_interrupted_when_captions_begin() {
    let mut rig = rig();
    rig.speak("Tell me a story.").llm(1, "Once upon a time there was a king. ");
    rig.tts(1, 16_000).wait(Duration::from_millis(500));
    rig.told(1);
    rig.effects.clear();

    configure(&mut rig, &json!({"mode": "captions"}));

    let told = rig.told(1);
    let types: Vec<_> = told.iter().map(|message| message["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        ["session_configured", "audio_stop_request", "answer_done", "speech_finish", "turn_metrics"]
    );
    assert_eq!(told[2]["finish"], "interrupted");
    assert!(rig.has(|effect| matches!(effect, Effect::StopLlm)));
    assert!(rig.has(|effect| matches!(effect, Effect::StopTts)));
    assert_eq!(rig.saved(), ["Once upon a time"]);
}

#[test]
fn what_was_said_before_captions_and_is_transcribed_late_is_not_answered() {
    let mut rig = rig();
    rig.start_speech().end_speech();
    let first = rig.session.recognition.last_utterance();
    rig.start_speech();
    rig.input(Input::Final(first, "Before.".into()));

    configure(&mut rig, &json!({"mode": "captions"}));
    rig.end_speech();
    let second = rig.session.recognition.last_utterance();
    rig.input(Input::Final(second, "After.".into()));

    assert_eq!(rig.saved(), ["Before.", "After."]);
    assert!(!rig.has(|effect| matches!(effect, Effect::Generate(..))));
}

// --- Push to talk -----------------------------------------------------------------------------

fn push_to_talk() -> Rig {
    let mut rig = rig();
    configure(&mut rig, &json!({"mode": "push_to_talk"}));
    rig.channel_audio(&QUIET).told(1);
    rig.effects.clear();
    rig
}

fn press(rig: &mut Rig) -> &mut Rig {
    rig.say(r#"{"type":"VAD","status":true}"#)
}

fn release(rig: &mut Rig) -> &mut Rig {
    rig.say(r#"{"type":"VAD","status":false}"#)
}

#[test]
fn by_push_to_talk_an_utterance_is_exactly_what_is_said_while_the_button_is_held() {
    let mut rig = push_to_talk();
    let inside: Vec<i16> = (0..20_000).map(|n| if n % 3 == 0 { 5_000 } else { 1 }).collect();

    rig.channel_audio(&loud()).channel_audio(&[7; 100]);
    press(&mut rig).channel_audio(&inside);
    release(&mut rig).channel_audio(&loud());

    assert_eq!(rig.utterance_audio(), inside);
    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::Transcribe(..))).count(), 1);
    assert_eq!(rig.told_types(1), ["speech_started", "speech_ended"]);
}

#[test]
fn by_push_to_talk_silence_ends_nothing_and_the_answer_begins_at_the_release() {
    let mut rig = push_to_talk();
    press(&mut rig).channel_audio(&loud());

    for _ in 0..10 {
        rig.channel_audio(&[1; 16_000]).wait(Duration::from_secs(1));
    }
    rig.wait(Duration::from_secs(20));
    assert!(!rig.closed(), "neither silence nor a stall");
    release(&mut rig);
    let utterance = rig.session.recognition.last_utterance();
    rig.input(Input::Final(utterance, "Hello.".into()));

    assert!(rig.closed());
    assert!(rig.has(|effect| matches!(effect, Effect::Generate(1, _))));
}

#[test]
fn a_button_that_is_pressed_interrupts_the_answer_and_noise_does_not() {
    let mut rig = push_to_talk();
    press(&mut rig).channel_audio(&loud());
    release(&mut rig);
    let utterance = rig.session.recognition.last_utterance();
    rig.input(Input::Final(utterance, "Hello.".into())).llm(1, "Hello yourself. ");
    rig.tts(1, 16_000).wait(Duration::from_millis(100));
    rig.effects.clear();

    rig.channel_audio(&loud()).channel_audio(&loud());
    assert!(!rig.has(|effect| matches!(effect, Effect::StopTts)));

    press(&mut rig);
    assert!(rig.has(|effect| matches!(effect, Effect::StopTts)));
}

#[test]
fn an_utterance_that_was_open_ends_when_push_to_talk_begins() {
    let mut rig = rig();
    rig.channel_audio(&loud());
    assert!(rig.opened() && !rig.closed());

    configure(&mut rig, &json!({"mode": "push_to_talk"}));

    assert!(rig.closed());
}

#[test]
fn a_session_that_was_push_to_talk_still_is_after_a_restart() {
    let mut rig = rig();
    let options = SessionOptions { mode: Some(Mode::PushToTalk), ..SessionOptions::default() };
    let info = SessionInfo { options, ..info() };
    rig.session = Session::new(info, Arc::new(config()), rig.now, STARTED_MS);
    rig.attach(2, None);

    assert_eq!(rig.told(2)[0]["options"]["mode"], "push_to_talk");
    rig.channel_audio(&loud());
    assert!(!rig.opened());
    press(&mut rig);
    assert!(rig.opened());
}
