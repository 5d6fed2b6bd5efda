//! Responses that are prepared at a likely end of a turn, and held until the end is certain.

use super::{
    pauses::{SILENCE, judge, silence, speech_and_pause},
    *,
};
use crate::providers::llm::ToolCall;

const LATE: Duration = Duration::from_millis(50);

fn rig() -> Rig {
    with(config())
}

fn with(config: SessionConfig) -> Rig {
    let mut rig = Rig::with(config);
    rig.attach(1, None);
    rig.told(1);
    rig.effects.clear();
    rig
}

fn interim(rig: &mut Rig, words: &str) {
    let utterance = rig.session.recognition.last_utterance();
    rig.input(Input::Interim(utterance, words.into()));
}

/// Somebody says this, and pauses as at the end of a turn. The utterance is still open.
fn likely_end(rig: &mut Rig, words: &str) {
    speech_and_pause(rig);
    judge(rig, 0.7);
    interim(rig, words);
    assert!(!rig.closed());
}

/// The pause becomes the end of the turn, with this final.
fn end(rig: &mut Rig, words: &str) {
    silence(rig, 20);
    assert!(rig.closed());
    let utterance = rig.session.recognition.last_utterance();
    rig.input(Input::Final(utterance, words.into()));
}

/// The model makes the whole answer, and its first sentence is synthesized.
fn answer(rig: &mut Rig, generation: u32) {
    rig.llm(generation, "It is five now. ").llm(generation, "Good night to you. ").llm_ends(generation);
    rig.tts(generation, 16_000).tts_ends(generation);
}

fn generations(rig: &Rig) -> Vec<u32> {
    let generation = |effect: &Effect| {
        let Effect::Generate(generation, _) = effect else { return None };
        Some(*generation)
    };
    rig.effects.iter().filter_map(generation).collect()
}

fn synthesized(rig: &Rig) -> Vec<&str> {
    rig.effects
        .iter()
        .filter_map(|effect| {
            let Effect::Synthesize(_, request) = effect else { return None };
            Some(request.text.as_str())
        })
        .collect()
}

fn is_dropped(rig: &Rig) -> bool {
    rig.has(|effect| matches!(effect, Effect::StopLlm)) && rig.has(|effect| matches!(effect, Effect::StopTts))
}

fn last_prompt(rig: &Rig) -> Vec<ChatMessage> {
    rig.prompt().expect("the model was asked").messages.clone()
}

#[test]
fn at_a_likely_end_an_answer_and_its_first_sentence_are_made_of_which_nobody_learns() {
    let mut rig = rig();
    likely_end(&mut rig, "What time is it");
    assert_eq!(last_prompt(&rig), [ChatMessage::user("What time is it")]);
    rig.told(1);

    answer(&mut rig, 1);
    rig.wait(LATE);

    assert_eq!(synthesized(&rig), ["It is five now."]);
    assert_eq!(rig.told_types(1), Vec::<String>::new());
    assert!(!rig.has(|effect| matches!(effect, Effect::SendBinary(..))));
    assert_eq!(rig.saved(), Vec::<String>::new());
}

#[test]
fn a_final_with_the_same_words_releases_the_answer_at_once() {
    let mut rig = rig();
    likely_end(&mut rig, "What time is it");
    answer(&mut rig, 1);
    rig.told(1);

    end(&mut rig, "What time is it?");

    let told = rig.told(1);
    let types: Vec<&str> = told.iter().filter_map(|message| message["type"].as_str()).collect();
    assert_eq!(
        types,
        ["speech_ended", "data_stream", "turn_started", "answer_delta", "answer_done", "speech_begin"]
    );
    assert_eq!((&told[2]["turnId"], &told[2]["generation"]), (&json!("turn_1"), &json!(1)));
    assert_eq!(told[3]["text"], "It is five now. Good night to you. ");
    assert!(rig.has(|effect| matches!(effect, Effect::SendBinary(..))));
    assert_eq!(generations(&rig), [1], "the model was asked once");
    assert_eq!(synthesized(&rig), ["It is five now.", "Good night to you."]);

    rig.tts(1, 1_600).tts_ends(1).wait(Duration::from_secs(3));
    assert_eq!(rig.saved(), ["What time is it?", "It is five now. Good night to you. "]);
    rig.speak("And now?");
    let conversation = last_prompt(&rig);
    assert_eq!(conversation[0], ChatMessage::user("What time is it?"), "the words of the final are kept");
}

#[test]
fn an_answer_that_is_not_complete_at_the_end_of_the_turn_goes_on() {
    let mut rig = rig();
    likely_end(&mut rig, "What time is it");
    rig.llm(1, "It is ");
    end(&mut rig, "What time is it?");
    rig.told(1);

    rig.llm(1, "five.").llm_ends(1);

    let told = rig.told(1);
    assert_eq!((&told[0]["type"], &told[0]["text"]), (&json!("answer_delta"), &json!("five.")));
    assert_eq!((&told[1]["type"], &told[1]["text"]), (&json!("answer_done"), &json!("It is five.")));
}

#[test]
fn without_a_voice_the_text_is_released_and_the_turn_is_over() {
    let mut rig = with(SessionConfig { voice: None, ..config() });
    likely_end(&mut rig, "What time is it");
    rig.llm(1, "It is five.").llm_ends(1);
    assert_eq!(rig.saved(), Vec::<String>::new());
    rig.told(1);

    end(&mut rig, "What time is it?");

    let types = rig.told_types(1);
    assert_eq!(types[2..], ["turn_started", "answer_delta", "answer_done", "turn_metrics"]);
    assert_eq!(rig.saved(), ["What time is it?", "It is five."]);
}

#[test]
fn a_final_with_other_words_is_answered_anew_and_nothing_is_left_of_what_was_prepared() {
    let mut rig = rig();
    likely_end(&mut rig, "What time is it");
    answer(&mut rig, 1);
    rig.told(1);

    end(&mut rig, "What time is it in Rome?");

    assert!(is_dropped(&rig));
    assert_eq!(generations(&rig), [1, 2]);
    assert_eq!(last_prompt(&rig), [ChatMessage::user("What time is it in Rome?")]);
    let told = rig.told(1);
    let started: Vec<_> = told.iter().filter(|message| message["type"] == "turn_started").collect();
    assert_eq!(started.len(), 1);
    assert_eq!((&started[0]["turnId"], &started[0]["generation"]), (&json!("turn_1"), &json!(2)));
    rig.llm(1, "late").tts(1, 1_600);
    assert_eq!(rig.told_types(1), Vec::<String>::new());
    assert_eq!(rig.saved(), ["What time is it in Rome?"]);
}

#[test]
fn who_goes_on_in_the_same_breath_is_answered_once_with_all_words() {
    let mut rig = rig();
    likely_end(&mut rig, "Turn on");
    answer(&mut rig, 1);
    rig.told(1);

    rig.start_speech();

    assert!(is_dropped(&rig));
    end(&mut rig, "Turn on the light.");
    assert_eq!(last_prompt(&rig), [ChatMessage::user("Turn on the light.")]);
    let answers = rig.told_types(1).iter().filter(|kind| kind.starts_with("answer")).count();
    assert_eq!(answers, 0);
    assert_eq!(rig.saved(), ["Turn on the light."]);
}

#[test]
fn who_goes_on_before_the_final_is_there_is_answered_once_with_all_words() {
    let mut rig = rig();
    likely_end(&mut rig, "Turn on");
    silence(&mut rig, 20);
    assert!(rig.closed());
    let first = rig.session.recognition.last_utterance();
    rig.effects.clear();

    rig.start_speech();

    assert!(is_dropped(&rig));
    rig.input(Input::Final(first, "Turn on".into()));
    end(&mut rig, "the light.");
    assert_eq!(last_prompt(&rig), [ChatMessage::user("Turn on the light.")]);
}

#[test]
fn who_goes_on_before_the_answer_can_be_heard_is_answered_once_with_all_words() {
    for (after, is_joined) in [(300, true), (500, false)] {
        let mut rig = rig();
        rig.speak("Turn on");
        rig.llm(1, "What should I turn on for you? ").tts(1, 32_000).wait(Duration::from_millis(after));
        rig.effects.clear();

        rig.start_speech();
        end(&mut rig, "the light.");

        let asked = last_prompt(&rig).pop().unwrap();
        let expected = if is_joined { "Turn on the light." } else { "the light." };
        assert_eq!(asked, ChatMessage::user(expected), "after {after} ms");
        let is_saved = rig.saved().iter().any(|line| line.starts_with("What"));
        assert_eq!(is_saved, !is_joined, "after {after} ms");
    }
}

#[test]
fn tools_are_called_when_the_end_is_certain() {
    let mut rig = rig();
    rig.say(r#"{"type":"configure_session","options":{"tools":[{"name":"light"}]}}"#);
    likely_end(&mut rig, "Turn on the light");
    let call = ToolCall { id: "a".into(), name: "light".into(), arguments: json!({}), signature: None };
    rig.llm(1, "Sure.").input(Input::Llm(1, StreamItem::More(LlmEvent::ToolCall(call))));
    rig.llm_ends(1);
    rig.wait(LATE);
    assert!(!rig.told_types(1).contains(&"tool_call".to_owned()));

    end(&mut rig, "Turn on the light.");

    let types = rig.told_types(1);
    let at = |kind: &str| types.iter().position(|told| told == kind).expect(kind);
    assert!(at("turn_started") < at("tool_call"), "{types:?}");
}

#[test]
fn tools_of_an_answer_that_is_thrown_away_are_not_called() {
    let mut rig = rig();
    rig.say(r#"{"type":"configure_session","options":{"tools":[{"name":"light"}]}}"#);
    likely_end(&mut rig, "Turn on the light");
    let call = ToolCall { id: "a".into(), name: "light".into(), arguments: json!({}), signature: None };
    rig.input(Input::Llm(1, StreamItem::More(LlmEvent::ToolCall(call)))).llm_ends(1);

    end(&mut rig, "Turn on the lights in the hall.");

    assert!(!rig.told_types(1).contains(&"tool_call".to_owned()));
    assert_eq!(last_prompt(&rig), [ChatMessage::user("Turn on the lights in the hall.")]);
    assert_eq!(rig.saved(), ["Turn on the lights in the hall."]);
}

#[test]
fn a_failure_is_not_told_before_the_end_and_the_turn_is_answered_anew() {
    let failures = [
        |rig: &mut Rig| _ = rig.input(Input::Llm(1, StreamItem::Over(Err(ProviderError::TimedOut)))),
        |rig: &mut Rig| {
            rig.llm(1, "It is five now. ")
                .input(Input::Tts(1, StreamItem::Over(Err(ProviderError::TimedOut))));
        },
    ];
    for fails in failures {
        let mut rig = rig();
        likely_end(&mut rig, "What time is it");
        rig.told(1);

        fails(&mut rig);

        assert_eq!(rig.told_types(1), Vec::<String>::new());
        end(&mut rig, "What time is it?");
        assert_eq!(generations(&rig), [1, 2]);
    }
}

#[test]
fn an_answer_that_was_prepared_with_other_options_is_thrown_away() {
    let mut rig = rig();
    likely_end(&mut rig, "What time is it");

    rig.say(r#"{"type":"configure_session","options":{"instructions":"Be rude."}}"#);

    assert!(is_dropped(&rig));
    end(&mut rig, "What time is it?");
    assert_eq!(rig.prompt().unwrap().system, "Be rude.");
}

#[test]
fn nothing_is_prepared_without_evidence_of_an_end_or_where_it_is_switched_off() {
    let unlikely = |rig: &mut Rig| {
        speech_and_pause(rig);
        judge(rig, 0.3);
        interim(rig, "What time is it");
    };
    let not_judged = |rig: &mut Rig| {
        speech_and_pause(rig);
        interim(rig, "What time is it");
    };
    let wants_more = |rig: &mut Rig| {
        speech_and_pause(rig);
        judge(rig, 0.9);
        interim(rig, "What time is the");
    };
    // It may lack the last word.
    let earlier_words = |rig: &mut Rig| {
        rig.start_speech();
        interim(rig, "What time");
        silence(rig, 6);
        judge(rig, 0.7);
    };
    let scenes: [&dyn Fn(&mut Rig); 4] = [&unlikely, &not_judged, &wants_more, &earlier_words];
    for (number, scene) in scenes.into_iter().enumerate() {
        let mut rig = rig();
        scene(&mut rig);
        assert!(rig.prompt().is_none(), "{number}");
    }

    let mut off = with(SessionConfig { preempts: false, ..config() });
    likely_end(&mut off, "What time is it");
    assert!(off.prompt().is_none());
    end(&mut off, "What time is it?");
    assert_eq!(generations(&off), [1]);
}

#[test]
fn captions_and_push_to_talk_prepare_nothing() {
    for mode in ["captions", "push_to_talk"] {
        let mut rig = rig();
        rig.say(&json!({"type": "configure_session", "options": {"mode": mode}}).to_string());
        rig.say(r#"{"type":"VAD","status":true}"#);
        rig.start_speech();
        for _ in 0..10 {
            rig.room_audio(&SILENCE);
            interim(&mut rig, "What time is it");
        }

        assert!(rig.prompt().is_none(), "{mode}");
    }
}

#[test]
fn a_typed_line_takes_the_place_of_what_was_prepared() {
    let mut rig = rig();
    likely_end(&mut rig, "What time");
    answer(&mut rig, 1);

    rig.say(r#"{"type":"say","text":"Hello."}"#);

    assert_eq!(generations(&rig), [1, 2]);
    assert_eq!(last_prompt(&rig), [ChatMessage::user("Hello.")]);
}

#[test]
fn an_answer_that_was_prepared_in_another_language_than_was_heard_is_thrown_away() {
    let mut rig = rig();
    rig.say(r#"{"type":"configure_session","options":{"language":"auto"}}"#);
    likely_end(&mut rig, "Hallo");
    silence(&mut rig, 20);

    let heard = Transcript { language: Language::parse("de").ok(), ..Transcript::text("Hallo") };
    rig.input(Input::Final(rig.session.recognition.last_utterance(), heard));

    assert_eq!(generations(&rig), [1, 2]);
}
