//! Streams in other languages than the session's: translations, and transcriptions beside it.

use super::*;
use crate::{
    limits::{Limit, Refusal},
    providers::{ProviderError, llm::Prompt, stt::SttRequest},
    session::{options::tests::offer, translation::TRANSLATION_TIME},
};

/// A session whose first LLM translates and whose second does not, with these subscriptions.
fn rig(subscriptions: &[&str]) -> Rig {
    let offer = Offer { llm_names: vec!["openai", "echo"], llm_translators: vec!["openai"], ..offer() };
    let mut rig = Rig::with(SessionConfig { offer, ..config() });
    rig.attach(1, None);
    rig.told(1);
    subscribe(&mut rig, subscriptions);
    rig
}

fn subscribe<'a>(rig: &'a mut Rig, subscriptions: &[&str]) -> &'a mut Rig {
    let message =
        json!({"type": "phone_subscription_update", "id": "p1", "subscriptions": subscriptions}).to_string();
    rig.say(&message)
}

/// What was asked of the LLM for translations, by their numbers.
fn asked(rig: &Rig) -> Vec<(u32, Prompt)> {
    rig.effects
        .iter()
        .filter_map(|effect| {
            let Effect::Translate(id, prompt) = effect else { return None };
            Some((*id, prompt.clone()))
        })
        .collect()
}

fn translated<'a>(rig: &'a mut Rig, id: u32, text: &str) -> &'a mut Rig {
    rig.input(Input::Translation(id, StreamItem::More(LlmEvent::TextDelta(text.into()))))
        .input(Input::Translation(id, StreamItem::Over(Ok(()))))
}

fn failed(rig: &mut Rig, id: u32, cause: ProviderError) -> &mut Rig {
    rig.input(Input::Translation(id, StreamItem::Over(Err(cause))))
}

/// The translations that were told.
fn translations(told: &[Value]) -> Vec<&Value> {
    told.iter().filter(|message| message["data"]["type"] == "translation").collect()
}

fn errors(told: &[Value]) -> Vec<&Value> {
    told.iter().filter(|message| message["type"] == "error").collect()
}

#[test]
fn a_final_is_translated_for_who_subscribed_and_answered_all_the_same() {
    let mut rig = rig(&["translation:en-US-to-de-DE"]);

    rig.speak("Good morning.");
    let answered_at_once = rig.has(|effect| matches!(effect, Effect::Generate(1, _)));
    let (id, prompt) = asked(&rig)[0].clone();
    rig.told(1);
    translated(&mut rig, id, " Guten Morgen.\n");

    assert!(answered_at_once, "the answer does not wait for the translation");
    assert!(prompt.system.contains("from en-US to de-DE"), "{}", prompt.system);
    assert_eq!(prompt.messages[0].text(), "Good morning.");
    let told = rig.told(1);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["streamType"], "translation:en-US-to-de-DE");
    let mut data = told[0]["data"].clone();
    let times = data.as_object_mut().unwrap();
    assert!(times.remove("startTime").is_some() && times.remove("endTime").is_some());
    assert_eq!(
        data,
        json!({
            "type": "translation", "utteranceId": "utt_1", "text": "Guten Morgen.", "originalText": "Good morning.",
            "isFinal": true, "transcribeLanguage": "en-US", "translateLanguage": "de-DE", "didTranslate": true,
            "provider": "openai",
        })
    );
    assert!(rig.has(|effect| matches!(
        effect,
        Effect::ForwardStream(ToClient::DataStream { stream_type, .. }) if stream_type == "translation:en-US-to-de-DE"
    )));
}

#[test]
fn without_a_subscription_and_without_words_nothing_is_translated() {
    let mut rig = rig(&["transcription"]);
    rig.speak("Good morning.");
    assert_eq!(asked(&rig), []);

    subscribe(&mut rig, &["translation:en-to-de"]).speak(" ");
    assert_eq!(asked(&rig), []);
}

#[test]
fn one_translation_is_made_at_a_time_in_the_order_of_what_was_said() {
    let mut rig = rig(&["translation:en-to-de", "translation:en-to-ja"]);

    rig.speak("One.").speak("Two.");
    for (id, text) in [(1, "Eins."), (2, "Ichi."), (3, "Zwei."), (4, "Ni.")] {
        assert_eq!(asked(&rig).len() as u32, id, "one at a time");
        translated(&mut rig, id, text);
    }

    let told = rig.told(1);
    let texts: Vec<_> = translations(&told).iter().map(|message| message["data"]["text"].clone()).collect();
    assert_eq!(texts, ["Eins.", "Ichi.", "Zwei.", "Ni."]);
}

#[test]
fn streams_of_one_language_share_a_call() {
    let mut rig = rig(&["translation:en-to-de", "translation:auto-to-de"]);

    rig.speak("Good morning.");
    translated(&mut rig, 1, "Guten Morgen.");

    assert_eq!(asked(&rig).len(), 1);
    assert_eq!(translations(&rig.told(1)).len(), 2);
}

#[test]
fn what_is_said_in_the_language_already_is_passed_on_as_such() {
    let mut rig = rig(&["translation:auto-to-en-GB"]);

    rig.speak("Good morning.");

    assert_eq!(asked(&rig), []);
    let told = rig.told(1);
    let data = &translations(&told)[0]["data"];
    assert_eq!((&data["text"], &data["didTranslate"]), (&json!("Good morning."), &json!(false)));
}

#[test]
fn a_translation_that_fails_is_told_by_an_error_and_never_by_the_original() {
    let unavailable = ProviderError::Connection("lost".into());
    let limited = ProviderError::Limited(Refusal {
        limit: Limit::LlmCallsPerMinute,
        retry_after: Duration::from_secs(7),
    });
    for (cause, code, message) in [
        (unavailable, "AI_UNAVAILABLE", "utt_1 is not translated: connection failed: lost"),
        (ProviderError::Empty, "AI_UNAVAILABLE", "utt_1 is not translated: gave nothing"),
        (limited, "RATE_LIMITED", "utt_1 is not translated: too many answers in this minute; wait"),
    ] {
        let mut rig = rig(&["translation:en-to-de"]);
        rig.speak("Good morning.");
        rig.told(1);

        failed(&mut rig, 1, cause);
        let told = rig.told(1);
        translated(&mut rig, 1, "too late");

        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0]["code"], &told[0]["message"]), (&json!(code), &json!(message)));
        assert_eq!(told[0]["streamType"], "translation:en-to-de");
        assert_eq!(told[0]["retryAfterMs"], if code == "RATE_LIMITED" { json!(7000) } else { json!(null) });
        assert_eq!(rig.told(1), [] as [Value; 0]);
    }
}

#[test]
fn a_translation_that_is_blank_cut_or_too_long_is_no_translation() {
    let long = LlmEvent::TextDelta("x".repeat(16_001));
    let blank = LlmEvent::TextDelta(" \n".into());
    for event in [blank, long, LlmEvent::Truncated] {
        let mut rig = rig(&["translation:en-to-de"]);
        rig.speak("Good morning.").told(1);

        rig.input(Input::Translation(1, StreamItem::More(event)));
        rig.input(Input::Translation(1, StreamItem::Over(Ok(()))));

        let told = rig.told(1);
        assert_eq!((told.len(), &told[0]["code"]), (1, &json!("AI_UNAVAILABLE")));
    }
}

#[test]
fn a_translation_has_so_much_time_and_the_next_one_is_made() {
    let mut rig = rig(&["translation:en-to-de"]);
    rig.speak("One.").speak("Two.").told(1);

    rig.wait(TRANSLATION_TIME);
    translated(&mut rig, 2, "Zwei.");

    assert!(rig.has(|effect| matches!(effect, Effect::StopTranslation)));
    let told = rig.told(1);
    assert_eq!(errors(&told)[0]["message"], "utt_1 is not translated: took too long");
    assert_eq!(translations(&told)[0]["data"]["text"], "Zwei.");
}

#[test]
fn of_what_waits_too_long_the_oldest_is_given_up_and_told() {
    let mut rig = rig(&["translation:en-to-de"]);
    for n in 0..11 {
        rig.speak(&format!("Sentence {n}."));
    }

    let told = rig.told(1);
    let given_up: Vec<_> = errors(&told).iter().map(|error| error["message"].clone()).collect();
    assert_eq!(
        given_up,
        ["utt_2", "utt_3"].map(|utterance| {
            format!("{utterance} is not translated: too much waits for translation; wait")
        })
    );
    translated(&mut rig, 1, "Satz 0.");
    assert_eq!(asked(&rig)[1].1.messages[0].text(), "Sentence 3.");
}

#[test]
fn who_no_longer_subscribes_gets_no_translation_and_the_call_is_cancelled() {
    let mut rig = rig(&["translation:en-to-de"]);
    rig.speak("One.").speak("Two.");

    // Not so soon after the attachment that an empty set waits.
    rig.wait(Duration::from_secs(3));
    rig.told(1);
    subscribe(&mut rig, &[]);
    translated(&mut rig, 1, "Eins.");

    assert!(rig.has(|effect| matches!(effect, Effect::StopTranslation)));
    assert_eq!(translations(&rig.told(1)).len(), 0);
    assert_eq!(asked(&rig).len(), 1);
}

#[test]
fn a_stream_that_is_not_served_is_refused_by_name_at_once_and_again_only_when_it_is_asked_for_again() {
    let mut rig = rig(&[]);
    rig.wait(Duration::from_secs(3)).told(1);

    subscribe(&mut rig, &["translation:en-to-xx", "transcription:fr", "transcription"]);
    let told = rig.told(1);
    rig.say(r#"{"type":"configure_session","options":{"vocabulary":["June"]}}"#);
    let again = rig.told(1);
    subscribe(&mut rig, &["transcription:fr"]);

    let refused: Vec<_> = told
        .iter()
        .map(|error| (error["code"].as_str(), error["streamType"].as_str(), error["message"].as_str()))
        .collect();
    assert_eq!(
        refused,
        [
            (
                Some("INVALID_REQUEST"),
                Some("translation:en-to-xx"),
                Some("translation:en-to-xx: \"xx\" is no known language (BCP 47)")
            ),
            (
                Some("UNSUPPORTED"),
                Some("transcription:fr"),
                Some("transcription:fr: listener does not transcribe fr")
            ),
        ]
    );
    assert!(told.iter().all(|error| error["replyTo"] == "p1"));
    assert_eq!(errors(&again), [] as [&Value; 0]);
    assert_eq!(errors(&rig.told(1)).len(), 1);
}

#[test]
fn a_session_that_takes_an_llm_that_cannot_translate_is_told_so() {
    let mut rig = rig(&["translation:en-to-de"]);
    rig.told(1);

    rig.say(r#"{"type":"configure_session","options":{"llm":["echo"]}}"#);
    rig.speak("Good morning.");

    let told = rig.told(1);
    let error = errors(&told)[0];
    assert_eq!(error["message"], "translation:en-to-de: echo does not translate");
    assert_eq!(asked(&rig), []);
}

#[test]
fn streams_of_a_client_that_attaches_are_refused_behind_its_acknowledgement() {
    let mut rig = rig(&[]);

    rig.attach_with(2, r#"{"type":"connection_init","subscriptions":["transcription:fr"]}"#);

    let types = rig.told_types(2);
    assert_eq!(types[0], "connection_ack");
    assert!(types.contains(&"error".to_owned()), "{types:?}");
}

#[test]
fn more_streams_than_are_served_are_refused() {
    let mut rig = rig(&[]);
    rig.told(1);
    let wanted: Vec<String> = (0..17).map(|n| format!("transcription?{n}")).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();

    subscribe(&mut rig, &wanted);

    let told = rig.told(1);
    assert_eq!((told.len(), &told[0]["code"]), (1, &json!("RATE_LIMITED")));
    assert_eq!(told[0]["streamType"], "transcription?16");
}

#[test]
fn speech_is_transcribed_in_another_language_for_who_subscribed_to_it() {
    let mut rig = rig(&["transcription:en-US", "transcription:de-DE"]);

    rig.start_speech().end_speech();
    let opened: Vec<(u64, SttRequest)> = rig
        .effects
        .iter()
        .filter_map(|effect| {
            let (Effect::Transcribe(utterance, request) | Effect::TranscribeBeside(utterance, request)) =
                effect
            else {
                return None;
            };
            Some((utterance.0, request.clone()))
        })
        .collect();
    let heard = |of: u64| -> usize {
        let samples = rig.effects.iter().filter_map(|effect| {
            let Effect::UtteranceAudio(utterance, samples) = effect else { return None };
            (utterance.0 == of).then_some(samples.len())
        });
        samples.sum()
    };
    let samples = [heard(1), heard(2)];
    let closed = rig.effects.iter().filter(|effect| matches!(effect, Effect::EndUtterance(_))).count();
    rig.told(1);
    rig.effects.clear();
    rig.input(Input::Final(UtteranceId(2), "Guten Morgen.".into()));
    let german = rig.told(1);
    let saved = rig.saved();
    rig.input(Input::Final(UtteranceId(1), "Good morning.".into()));

    let language = |tag| SpokenLanguage::Known(Language::parse(tag).unwrap());
    assert_eq!(opened.len(), 2);
    assert_eq!((opened[0].0, &opened[0].1.language), (1, &language("en-US")));
    assert_eq!((opened[1].0, &opened[1].1.language), (2, &language("de-DE")));
    assert!(samples[0] > 0 && samples[0] == samples[1], "{samples:?}");
    assert_eq!(closed, 2);
    assert_eq!(german.len(), 1, "{german:?}");
    assert_eq!(german[0]["streamType"], "transcription:de-DE");
    assert_eq!(german[0]["data"]["transcribeLanguage"], "de-DE");
    assert_eq!(saved, [] as [String; 0], "it is no line of the history");
    let english = rig.told(1);
    assert_eq!(english[0]["streamType"], "transcription:en-US");
    assert_eq!(english[1]["type"], "turn_started");
    assert_eq!(english[1]["utteranceIds"], json!(["utt_1"]));
}

#[test]
fn a_transcript_of_the_clients_own_is_of_the_users_utterance_and_not_of_one_beside_it() {
    let mut rig = rig(&["transcription:de-DE"]);
    rig.start_speech().end_speech().told(1);

    rig.say(r#"{"type":"local_transcription","text":"Good morning.","isFinal":true}"#);

    let started = rig.told(1).into_iter().find(|message| message["type"] == "turn_started").unwrap();
    assert_eq!(started["utteranceIds"], json!(["utt_1"]));
}

#[test]
fn the_speaker_whom_a_provider_tells_apart_is_in_messages_and_history() {
    let mut rig = rig(&["transcription", "translation:en-to-de"]);
    rig.start_speech().end_speech().told(1);
    let heard = |text: &str| Transcript { speaker: Some("1".into()), ..Transcript::text(text) };

    rig.input(Input::Interim(UtteranceId(1), heard("Good")));
    rig.input(Input::Final(UtteranceId(1), heard("Good morning.")));
    translated(&mut rig, 1, "Guten Morgen.");

    let told = rig.told(1);
    let speakers: Vec<_> = told.iter().filter_map(|message| message["data"]["speakerId"].as_str()).collect();
    assert_eq!(speakers, ["1", "1", "1"], "interim, final, translation");
    assert!(rig.has(|effect| matches!(
        effect,
        Effect::Save(HistoryItem::Utterance { speaker: Some(speaker), participant: None, .. }, _) if speaker == "1"
    )));
}
