//! Lines that are asked over REST, and transcripts of STT services that the gateway does not call.

use super::*;
use crate::{
    protocol::edge_v1::to_client::Finish,
    providers::{ProviderError, llm::Image},
    session::{
        messages::{Taken, Transcribed},
        question::{Answer, Audio, Failure, Question, Reply},
    },
};

const ID: QuestionId = 1;

impl Rig {
    fn asks(&mut self, id: QuestionId, text: &str, with_audio: bool) -> &mut Self {
        let question = Question { text: text.into(), images: Vec::new(), language: None, with_audio };
        self.input(Input::Asked(id, question))
    }

    /// What was told to whoever asked, since the last call.
    fn replies(&mut self, id: QuestionId) -> Vec<Reply> {
        let mut replies = Vec::new();
        self.effects.retain(|effect| {
            let Effect::Reply(of, reply) = effect else { return true };
            if *of == id {
                replies.push(reply.clone());
            }
            *of != id
        });
        replies
    }

    fn answer(&mut self, id: QuestionId) -> Answer {
        match self.replies(id).pop() {
            Some(Reply::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn failure(&mut self, id: QuestionId) -> Failure {
        match self.replies(id).pop() {
            Some(Reply::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    /// A transcript from elsewhere, and what became of it.
    fn transcribed(&mut self, name: &str, text: &str, is_final: bool) -> Taken {
        let transcribed = Transcribed {
            utterance: Some(name.into()),
            digest: 0,
            sequence: None,
            text: text.into(),
            is_final,
            language: None,
        };
        self.input(Input::Transcribed(transcribed)).taken()
    }

    fn taken(&mut self) -> Taken {
        let taken = self.effects.extract_if(.., |effect| matches!(effect, Effect::Taken(_))).last();
        match taken {
            Some(Effect::Taken(taken)) => taken,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_line_is_answered_without_a_client_and_saved() {
    let mut rig = Rig::new();

    rig.asks(ID, "What time is it?", false).llm(1, "It is ").llm(1, "five.").llm_ends(1);

    let replies = rig.replies(ID);
    assert_eq!(replies[..2], [Reply::Delta("It is ".into()), Reply::Delta("five.".into())]);
    let answer = Answer {
        turn_id: TurnId(1),
        text: "It is five.".into(),
        finish: Finish::Stop,
        audio: Audio::NotAsked,
    };
    assert_eq!(replies[2..], [Reply::Answer(answer)]);
    assert_eq!(rig.saved(), ["What time is it?", "It is five."]);
    assert!(!rig.has(|effect| matches!(effect, Effect::Synthesize(..))), "nobody hears it");
    rig.asks(2, "And now?", false);
    assert_eq!(rig.prompt().unwrap().messages.len(), 3, "the same conversation");
}

#[test]
fn an_attached_client_hears_the_answer_as_well() {
    let mut rig = Rig::attached();

    rig.asks(ID, "What time is it?", false).llm(1, "It is five.").llm_ends(1);

    assert_eq!(rig.answer(ID).text, "It is five.", "before it was spoken");
    assert_eq!(rig.told_types(1), ["turn_started", "answer_delta", "answer_done"]);
    rig.tts(1, 1600).tts_ends(1).wait(Duration::from_millis(200));
    assert_eq!(rig.told_types(1), ["speech_begin", "speech_finish", "turn_metrics"]);
}

#[test]
fn the_whole_answer_is_spoken_in_the_language_of_the_line() {
    let mut rig = Rig::attached();
    let language = Some(Language::parse("de").unwrap());
    let question = Question { text: "Und?".into(), images: Vec::new(), language, with_audio: false };
    rig.input(Input::Asked(ID, question));

    rig.llm(1, "Es war einmal ein König. Der hatte eine Tochter.").llm_ends(1).tts(1, 1600).tts_ends(1);

    let languages = rig.effects.iter().filter_map(|effect| {
        let Effect::Synthesize(_, request) = effect else { return None };
        Some(request.language.clone())
    });
    assert_eq!(languages.collect::<Vec<_>>(), vec![Some(Language::parse("de").unwrap()); 2]);
}

#[test]
fn the_answer_is_recorded_for_whom_asks_for_it_with_and_without_a_client() {
    for mut rig in [Rig::new(), Rig::attached()] {
        rig.asks(ID, "Tell me more.", true).llm(1, "Once upon a time. There was a king.").llm_ends(1);
        assert!(rig.replies(ID).iter().all(|reply| matches!(reply, Reply::Delta(_))), "not yet");

        // More than a client is sent ahead.
        rig.tts(1, 16_000 * 6).tts_ends(1).tts(1, 16_000).tts_ends(1);

        let Audio::Recorded { samples, rate_hz, is_cut } = rig.answer(ID).audio else { panic!("no audio") };
        assert_eq!((samples.len(), rate_hz, is_cut), (16_000 * 7, 16_000, false));
    }
}

#[test]
fn a_recording_has_a_longest_duration_and_none_has_a_gap() {
    let mut rig = Rig::new();
    rig.asks(ID, "Tell me more.", true).llm(1, "On and on.").llm_ends(1).tts(1, 16_000 * 181).tts_ends(1);
    let Audio::Recorded { samples, is_cut, .. } = rig.answer(ID).audio else { panic!("no audio") };
    assert_eq!((samples.len(), is_cut), (16_000 * 180, true));

    rig.asks(2, "And more.", true).llm(2, "One. Two.").llm_ends(2).tts(2, 100);
    rig.input(Input::Tts(2, StreamItem::Over(Err(ProviderError::Busy))));

    let answer = rig.answer(2);
    assert_eq!(
        (answer.text.as_str(), answer.audio),
        ("One. Two.", Audio::Failed("the answer could not be spoken"))
    );
}

#[test]
fn a_language_model_that_fails_is_a_failure_also_after_some_text() {
    for text in ["", "It is "] {
        let mut rig = Rig::new();
        rig.asks(ID, "What time is it?", true);
        if !text.is_empty() {
            rig.llm(1, text);
        }

        rig.input(Input::Llm(1, StreamItem::Over(Err(ProviderError::Refused("no such model".into())))));

        let failure = rig.failure(ID);
        assert_eq!(failure.code, Code::AiUnavailable);
        assert!(failure.message.contains("no such model"), "{failure:?}");
    }
}

#[test]
fn an_answer_without_text_is_a_failure() {
    let mut rig = Rig::new();
    rig.asks(ID, "Hello?", false).llm(1, " \n").llm_ends(1);
    assert_eq!(rig.failure(ID).code, Code::AiUnavailable);

    rig.asks(2, "Hello?", false).wait(config().answer_time);
    let failure = rig.failure(2);
    assert_eq!(failure.code, Code::AiUnavailable);
    assert!(failure.message.contains("too long"), "{failure:?}");
}

#[test]
fn a_second_line_takes_the_place_of_the_first_and_both_are_told() {
    let mut rig = Rig::new();
    rig.asks(1, "Tell me a story.", false);

    rig.asks(2, "No, a joke.", false);

    assert_eq!(rig.failure(1).code, Code::SessionError);
    assert_eq!(rig.prompt().unwrap().messages.last().unwrap().text(), "Tell me a story. No, a joke.");
    rig.llm(2, "A horse ").asks(3, "Stop.", false);
    let answer = rig.answer(2);
    assert_eq!((answer.text.as_str(), answer.finish), ("A horse ", Finish::Interrupted));
}

#[test]
fn whoever_does_not_wait_any_more_stops_the_answer_and_only_their_own() {
    let mut rig = Rig::new();
    rig.asks(1, "Tell me a story.", false);
    rig.input(Input::Withdrawn(1));
    assert!(rig.has(|effect| matches!(effect, Effect::StopLlm)));

    rig.asks(2, "Tell me a joke.", false);
    rig.effects.clear();
    rig.input(Input::Withdrawn(1));
    assert!(!rig.has(|effect| matches!(effect, Effect::StopLlm)));
}

#[test]
fn a_client_that_has_its_text_does_not_stop_the_speech_by_closing() {
    let mut rig = Rig::attached();
    rig.asks(ID, "What time is it?", false).llm(1, "It is five.").llm_ends(1);
    rig.effects.clear();

    rig.input(Input::Withdrawn(ID));

    assert!(!rig.has(|effect| matches!(effect, Effect::StopTts)));
}

#[test]
fn an_answer_outlasts_the_grace() {
    let answer_time = GRACE * 3;
    let mut rig = Rig::with(SessionConfig { answer_time, ..config() });
    rig.asks(ID, "Tell me a story.", false).llm(1, "Once ");

    rig.wait(GRACE * 2);

    assert!(!rig.has(|effect| matches!(effect, Effect::Ended(_))));
    rig.llm_ends(1);
    assert_eq!(rig.answer(ID).text, "Once ");
    rig.wait(GRACE);
    assert!(rig.has(|effect| matches!(effect, Effect::Ended(EndReason::GraceExpired))));
}

#[test]
fn nothing_is_answered_in_captions() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#);

    rig.asks(ID, "Hello?", false);

    assert_eq!(rig.failure(ID).code, Code::SessionError);
    assert_eq!(rig.saved(), Vec::<String>::new());
}

#[test]
fn an_image_is_shown_with_its_line_only() {
    let mut rig = Rig::new();
    let image = Image::new(Bytes::from_static(b"\x89PNG\r\n\x1a\n")).unwrap();
    let question = Question {
        text: "What is this?".into(),
        images: vec![image.clone()],
        language: None,
        with_audio: false,
    };

    rig.asks(1, "Hello.", false).llm(1, "Hello.").llm_ends(1);
    rig.asks(2, "Once more.", false).llm(2, "Hel");
    rig.input(Input::Asked(3, question));

    let expected = ChatMessage::User { text: "What is this?".into(), images: vec![image] };
    assert_eq!(rig.prompt().unwrap().messages.last(), Some(&expected));
    rig.llm(3, "A cat.").llm_ends(3).asks(4, "Sure?", false);
    let prompt = rig.prompt().unwrap();
    let has_images =
        |message: &ChatMessage| matches!(message, ChatMessage::User { images, .. } if !images.is_empty());
    assert!(!prompt.messages.iter().any(has_images));
    assert!(prompt.messages.iter().any(|message| message.text().contains("no longer shown")));
}

// --- Transcripts from elsewhere -----------------------------------------------------------------

#[test]
fn interims_from_elsewhere_are_told_and_a_final_is_answered_at_once() {
    let mut rig = Rig::attached();

    let Taken::As(utterance) = rig.transcribed("u1", "What ti", false) else { panic!("not taken") };
    let interim = rig.told(1).pop().unwrap();
    assert_eq!((&interim["data"]["text"], &interim["data"]["isFinal"]), (&json!("What ti"), &json!(false)));
    assert_eq!(rig.transcribed("u1", "What time is it?", true), Taken::As(utterance));

    assert_eq!(rig.told_types(1), ["data_stream", "turn_started"]);
    assert_eq!(rig.saved(), ["What time is it?"]);
    assert_eq!(rig.transcribed("u1", "What time is it?", true), Taken::Duplicate);
    assert_eq!(rig.told_types(1), Vec::<String>::new());
}

#[test]
fn a_final_from_elsewhere_interrupts_the_answer() {
    let mut rig = Rig::attached();
    rig.speak("Tell me a story.");
    rig.llm(1, "Once upon a time there was a king. ").tts(1, 16_000).wait(Duration::from_millis(500));
    rig.told(1);

    rig.transcribed("u1", "Stop.", true);

    let types = rig.told_types(1);
    assert!(types.contains(&"audio_stop_request".to_owned()), "{types:?}");
    assert_eq!(types.last().unwrap(), "turn_started");
}

#[test]
fn a_voice_onset_interrupts_the_answer() {
    let mut rig = Rig::attached();
    assert_eq!(rig.input(Input::VoiceOnset).taken(), Taken::Nothing);
    rig.speak("Tell me a story.");
    rig.llm(1, "Once upon a time there was a king. ").tts(1, 16_000).wait(Duration::from_millis(500));
    rig.told(1);

    assert_eq!(rig.input(Input::VoiceOnset).taken(), Taken::Interrupted);

    assert_eq!(rig.told_types(1)[0], "audio_stop_request");
}

#[test]
fn captions_from_elsewhere_are_told_and_not_answered() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#).told(1);

    rig.transcribed("u1", "What time is it?", true);

    assert_eq!(rig.told_types(1), ["data_stream"]);
    assert!(!rig.has(|effect| matches!(effect, Effect::Generate(..))));
}

#[test]
fn an_utterance_from_elsewhere_whose_final_never_comes_ends_empty() {
    let mut rig = Rig::attached();
    for n in 0..9 {
        rig.transcribed(&format!("u{n}"), "Hello", false);
    }

    let finals: Vec<Value> =
        rig.told(1).into_iter().filter(|message| message["data"]["isFinal"] == true).collect();

    assert_eq!(finals.len(), 1);
    assert_eq!(finals[0]["data"]["text"], "");
    assert!(!rig.has(|effect| matches!(effect, Effect::Generate(..))));
}
