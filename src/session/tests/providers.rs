//! Providers that fail: what the client is told, and what it hears instead of an answer.

use super::*;
use crate::{
    providers::{
        ProviderError,
        chain::{ChainStatus, Condition, ProviderRole},
        tts::{SpeechRequest, TextToSpeech},
    },
    session::options::tests::Speaks,
};

const EXCUSE: &str = "Sorry, not now.";
const GERMAN: &str = "Leider nicht.";

fn excuses() -> Excuses {
    let texts = [("en", EXCUSE), ("de", GERMAN)];
    let texts = texts.map(|(tag, text)| (Language::parse(tag).unwrap(), Some(text.to_owned())));
    Excuses::new(texts.to_vec())
}

fn taken_over(rig: &Rig) -> ChainStatus {
    ChainStatus {
        condition: Condition::Degraded,
        provider: "one",
        taken_over_by: Some("two"),
        retry_at: Some(rig.now + Duration::from_secs(10)),
        message: Some("connection failed".into()),
    }
}

fn ready() -> ChainStatus {
    ChainStatus {
        condition: Condition::Ready,
        provider: "one",
        taken_over_by: None,
        retry_at: None,
        message: None,
    }
}

fn spoken(rig: &Rig) -> Vec<String> {
    let sentences = rig.effects.iter().filter_map(|effect| {
        let Effect::Synthesize(_, request) = effect else { return None };
        Some(request.text.clone())
    });
    sentences.collect()
}

/// A session that has asked something, and whose language model then fails.
fn without_answer() -> Rig {
    let mut rig = Rig::with(SessionConfig { excuses: excuses(), ..config() });
    rig.attach(1, None);
    rig.speak("What time is it?");
    let lost = ProviderError::Connection("lost".into());
    rig.input(Input::Llm(1, StreamItem::Over(Err(lost))));
    rig
}

/// How the response was saved.
fn response(rig: &Rig) -> (String, Finish, Option<u64>) {
    let saved = rig.effects.iter().find_map(|effect| {
        let Effect::Save(HistoryItem::Response { text, finish, played_ms, .. }, _) = effect else {
            return None;
        };
        Some((text.clone(), *finish, *played_ms))
    });
    saved.expect("the response is saved")
}

#[test]
fn a_client_is_told_who_took_over_and_that_the_provider_works_again() {
    let mut rig = Rig::attached();
    rig.told(1);
    for (role, kind) in
        [(ProviderRole::Stt, "stt_state"), (ProviderRole::Llm, "llm_state"), (ProviderRole::Tts, "tts_state")]
    {
        let status = taken_over(&rig);
        rig.input(Input::ProviderState(role, status)).input(Input::ProviderState(role, ready()));

        let told = rig.told(1);
        let expected = json!({
            "type": kind, "seq": told[0]["seq"], "state": "degraded", "provider": "one", "takenOverBy": "two",
            "retryInMs": 10_000, "message": "connection failed",
        });
        assert_eq!(told[0], expected);
        assert_eq!((&told[1]["type"], &told[1]["state"]), (&json!(kind), &json!("ready")));
    }
}

#[test]
fn a_client_that_was_away_is_told_the_present_state_and_not_what_happened() {
    let mut rig = Rig::attached();
    let last_seq = rig.session.downlink.last_seq();
    rig.input(Input::SocketLost(1));
    let status = taken_over(&rig);
    rig.input(Input::ProviderState(ProviderRole::Stt, status.clone()));
    rig.input(Input::ProviderState(ProviderRole::Stt, ready()));
    rig.input(Input::ProviderState(ProviderRole::Tts, status));
    rig.wait(Duration::from_secs(4));

    rig.attach(2, Some(last_seq));

    let told = rig.told(2);
    let states: Vec<_> = told
        .iter()
        .filter(|message| {
            ["stt_state", "llm_state", "tts_state"].contains(&message["type"].as_str().unwrap())
        })
        .collect();
    assert_eq!(states.len(), 1, "{told:?}");
    assert_eq!((&states[0]["type"], &states[0]["retryInMs"]), (&json!("tts_state"), &json!(6_000)));
}

#[test]
fn a_phone_is_not_told_of_states() {
    let mut rig = Rig::new();
    rig.attach_as(Profile::Mentra, 1, None);
    rig.told(1);
    for role in [ProviderRole::Stt, ProviderRole::Llm, ProviderRole::Tts] {
        let status = taken_over(&rig);
        let failed = ChainStatus { condition: Condition::Failed, taken_over_by: None, ..status.clone() };
        rig.input(Input::ProviderState(role, status)).input(Input::ProviderState(role, failed));
    }

    assert_eq!(rig.told(1), Vec::<Value>::new());
}

#[test]
fn an_utterance_that_fails_while_no_stt_works_does_not_say_that_one_does() {
    let mut rig = Rig::attached();
    let failed = ChainStatus { condition: Condition::Failed, taken_over_by: None, ..taken_over(&rig) };
    rig.input(Input::ProviderState(ProviderRole::Stt, failed));
    rig.start_speech().end_speech();
    rig.told(1);

    rig.input(Input::SttFailed(rig.session.recognition.last_utterance(), "lost".into()));

    assert_eq!(rig.told(1)[0]["state"], "failed");
}

#[test]
fn where_no_language_model_answers_an_excuse_is_spoken_that_is_no_answer() {
    let mut rig = without_answer();
    assert_eq!(spoken(&rig), [EXCUSE]);
    let done = rig.told(1).into_iter().find(|message| message["type"] == "answer_done").unwrap();
    assert_eq!((&done["finish"], &done["text"]), (&json!("error"), &json!("")));
    assert_eq!(done["excuse"], EXCUSE);

    rig.tts(1, 1_600).tts_ends(1).wait(Duration::from_millis(200));

    assert!(rig.has(|effect| matches!(effect, Effect::SendBinary(..))));
    assert_eq!(response(&rig), (String::new(), Finish::Error, None));
    rig.effects.clear();
    rig.speak("And now?");
    let Some(Effect::Generate(2, prompt)) =
        rig.effects.iter().find(|effect| matches!(effect, Effect::Generate(..)))
    else {
        panic!("{:?}", rig.effects)
    };
    assert!(!format!("{prompt:?}").contains(EXCUSE), "{prompt:?}");
}

#[test]
fn an_excuse_that_is_interrupted_is_no_answer_either() {
    let mut rig = without_answer();
    rig.tts(1, 16_000).wait(Duration::from_millis(900));

    rig.start_speech();

    assert!(rig.has(|effect| matches!(effect, Effect::StopTts)));
    assert_eq!(response(&rig), (String::new(), Finish::Error, None));
}

#[test]
fn an_answer_that_breaks_off_is_kept_as_far_as_it_went_and_not_excused() {
    let mut rig = Rig::with(SessionConfig { excuses: excuses(), ..config() });
    rig.attach(1, None);
    rig.speak("What time is it?");
    rig.llm(1, "It is five. ");
    rig.input(Input::Llm(1, StreamItem::Over(Err(ProviderError::TimedOut))));
    rig.tts(1, 1_600).tts_ends(1).wait(Duration::from_millis(200));

    assert_eq!(spoken(&rig), ["It is five."]);
    assert_eq!(response(&rig).0, "It is five. ");
}

#[test]
fn a_model_that_says_nothing_in_its_time_is_excused() {
    let mut rig = Rig::with(SessionConfig { excuses: excuses(), client_timeout: GRACE * 10, ..config() });
    rig.attach(1, None);
    rig.speak("What time is it?");

    rig.wait(config().answer_time);

    assert_eq!(spoken(&rig), [EXCUSE]);
}

#[test]
fn a_user_who_is_over_a_limit_hears_no_excuse() {
    let mut rig = Rig::with(SessionConfig { excuses: excuses(), ..config() });
    rig.attach(1, None);
    rig.speak("What time is it?");
    let refusal = crate::limits::Limit::LlmCallsPerMinute.refuse(Duration::from_secs(1));

    rig.input(Input::Llm(1, StreamItem::Over(Err(ProviderError::Limited(refusal)))));

    assert_eq!(spoken(&rig), Vec::<String>::new());
}

/// A session whose language model has answered, and whose first sentence no TTS speaks.
fn without_voice() -> Rig {
    let mut rig = Rig::with(SessionConfig { excuses: excuses(), ..config() });
    rig.attach(1, None);
    rig.speak("What time is it?");
    rig.llm(1, "It is five. Or six.").llm_ends(1);
    rig.input(Input::Tts(1, StreamItem::Over(Err(ProviderError::Connection("lost".into())))));
    rig
}

#[test]
fn where_no_tts_speaks_the_embedded_voice_makes_an_excuse_that_is_no_answer() {
    let mut rig = without_voice();
    assert!(rig.has(|effect| matches!(effect, Effect::Excuse(1, said) if said.text == EXCUSE)));
    assert_eq!(spoken(&rig), ["It is five."], "no other sentence is tried");

    rig.tts(1, 1_600).tts_ends(1).wait(Duration::from_millis(200));

    assert!(rig.has(|effect| matches!(effect, Effect::SendBinary(..))));
    let told = rig.told(1);
    let finish = told.iter().find(|message| message["type"] == "speech_finish").unwrap();
    assert_eq!(finish["finish"], "error");
    assert_eq!(response(&rig), (String::new(), Finish::Error, None));
}

#[test]
fn where_the_embedded_voice_fails_too_nothing_is_spoken_and_the_turn_ends() {
    let mut rig = without_voice();

    rig.input(Input::Tts(1, StreamItem::Over(Err(ProviderError::Connection("lost".into())))));

    assert!(!rig.has(|effect| matches!(effect, Effect::SendBinary(..))));
    assert_eq!(response(&rig), (String::new(), Finish::Error, None));
    assert!(rig.told_types(1).iter().all(|kind| kind != "speech_begin"));
}

#[test]
fn an_excuse_of_the_embedded_voice_that_is_interrupted_is_no_answer_either() {
    let mut rig = without_voice();
    rig.tts(1, 16_000).wait(Duration::from_millis(500));

    rig.start_speech();

    assert!(rig.has(|effect| matches!(effect, Effect::StopTts)));
    assert_eq!(response(&rig), (String::new(), Finish::Interrupted, None));
}

/// A session in a language, with a TTS of others; its language model fails. The excuse as text, and as it is spoken.
fn excused(language: &str, spoken_by_tts: &'static [&'static str]) -> (String, Vec<SpeechRequest>) {
    let tts: Arc<dyn TextToSpeech> = Arc::new(Speaks(spoken_by_tts));
    let language = SpokenLanguage::Known(Language::parse(language).unwrap());
    let offer = Offer { language, tts: Some(tts), ..Offer::default() };
    let mut rig = Rig::with(SessionConfig { excuses: excuses(), offer, ..config() });
    rig.attach(1, None).speak("Hello?");
    rig.input(Input::Llm(1, StreamItem::Over(Err(ProviderError::TimedOut))));
    let done = rig.told(1).into_iter().find(|message| message["type"] == "answer_done").unwrap();
    let requests = rig.effects.iter().filter_map(|effect| {
        let (Effect::Synthesize(_, request) | Effect::Excuse(_, request)) = effect else { return None };
        Some(request.clone())
    });
    (done["excuse"].as_str().unwrap().to_owned(), requests.collect())
}

#[test]
fn an_excuse_is_in_the_language_of_the_session_and_text_alone_where_no_voice_speaks_it() {
    let request = |tag: &str, text: &str| {
        let language = Some(Language::parse(tag).unwrap());
        vec![SpeechRequest { language, ..SpeechRequest::text(text) }]
    };

    assert_eq!(excused("de-AT", &["en", "de"]), (GERMAN.into(), request("de-AT", GERMAN)));
    assert_eq!(excused("de-AT", &["en"]), (GERMAN.into(), Vec::new()));
    // There is no text in the language.
    assert_eq!(excused("it", &["en", "it"]), (EXCUSE.into(), Vec::new()));
}

#[test]
fn the_embedded_voice_is_asked_for_an_excuse_in_the_language_of_the_session() {
    let language = SpokenLanguage::Known(Language::parse("de").unwrap());
    let offer = Offer { language: language.clone(), ..Offer::default() };
    let mut rig = Rig::with(SessionConfig { excuses: excuses(), offer, ..config() });
    rig.attach(1, None).speak("Hallo?").llm(1, "Es ist zehn.").llm_ends(1);

    rig.input(Input::Tts(1, StreamItem::Over(Err(ProviderError::TimedOut))));

    let german = Some(Language::parse("de").unwrap());
    let expected = SpeechRequest { language: german, ..SpeechRequest::text(GERMAN) };
    assert!(rig.has(|effect| matches!(effect, Effect::Excuse(1, said) if *said == expected)));
}
