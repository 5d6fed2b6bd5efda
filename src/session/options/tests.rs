use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{
    audio::Pcm,
    providers::{ProviderError, stt::SttEvent},
    session::tests::english,
};

/// Knows these languages, and says nothing.
pub(crate) struct Speaks(pub(crate) &'static [&'static str]);

impl Speaks {
    fn knows(&self, language: &Language) -> bool {
        self.0.contains(&language.primary())
    }
}

impl SpeechToText for Speaks {
    fn name(&self) -> &'static str {
        "listener"
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        match language {
            SpokenLanguage::Auto { .. } => self.0.len() > 1,
            SpokenLanguage::Known(language) => self.knows(language),
        }
    }

    fn open(
        &self,
        _: SttRequest,
        _: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        stream::pending().boxed()
    }
}

impl TextToSpeech for Speaks {
    fn name(&self) -> &'static str {
        "speaker"
    }

    fn sample_rate_hz(&self) -> u32 {
        16_000
    }

    fn speaks(&self, language: &Language) -> bool {
        self.knows(language)
    }

    fn voices(&self) -> &[&'static str] {
        &["joe", "ann"]
    }

    fn synthesize(&self, _: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        stream::pending().boxed()
    }
}

/// An STT of three languages and a TTS of two; English unless somebody asks.
pub(crate) fn offer() -> Offer {
    Offer {
        language: english(),
        stt: Some(Arc::new(Speaks(&["en", "de", "ja"]))),
        tts: Some(Arc::new(Speaks(&["en", "de"]))),
        stt_names: vec!["deepgram", "moonshine"],
        llm_names: vec!["echo"],
        tts_names: Vec::new(),
        llm_translators: Vec::new(),
        participants: 4,
        tools: Tools::default(),
    }
}

/// Options that are valid with some offer.
pub(crate) fn options_of(asked: Value) -> Options {
    Options::of_record(serde_json::from_value(asked).unwrap(), &offer())
}

fn options(asked: Value) -> Result<Options, String> {
    let Value::Object(asked) = asked else { panic!("{asked}") };
    let mut given = SessionOptions::default();
    let options = given.set(asked).and_then(|()| Options::new(given, &offer()));
    options.map_err(|invalid| invalid.to_string())
}

#[test]
fn what_is_not_asked_for_is_as_the_gateway_says() {
    let in_force = options(json!({})).unwrap().in_force(&offer());

    let expected = json!({
        "language": "en-US", "mode": "conversation", "stt": ["deepgram", "moonshine"], "llm": ["echo"],
    });
    assert_eq!(serde_json::to_value(in_force).unwrap(), expected);
}

#[test]
fn what_is_asked_for_is_in_force_and_in_the_requests() {
    let asked = json!({
        "language": "de-at", "instructions": "Be kind.", "voice": "joe", "mode": "push_to_talk",
        "vocabulary": ["Sachertorte"], "stt": ["moonshine"], "llm": ["echo"],
    });

    let options = options(asked.clone()).unwrap();

    let mut expected = asked;
    expected["language"] = json!("de-AT");
    assert_eq!(serde_json::to_value(options.in_force(&offer())).unwrap(), expected);
    let language = Language::parse("de-AT").unwrap();
    let transcription = SttRequest {
        language: SpokenLanguage::Known(language.clone()),
        vocabulary: vec!["Sachertorte".into()],
    };
    assert_eq!(options.transcription(), transcription);
    let speech = SpeechRequest { text: "Hallo.".into(), language: Some(language), voice: Some("joe".into()) };
    assert_eq!(options.speech("Hallo.".into(), None, &offer()), speech);
    assert_eq!(options.instructions(), Some("Be kind."));
}

#[test]
fn what_is_not_valid_is_refused_by_name_with_the_reason_and_what_there_is() {
    let words = |count| json!({ "vocabulary": vec!["word"; count] });
    for (asked, reason) in [
        (
            json!({"language": "de_DE"}),
            "language: must be a language tag (BCP 47), such as en or de-AT; or auto",
        ),
        (json!({"language": "fr"}), "language: listener does not transcribe fr"),
        (json!({"language": "ja"}), "language: speaker does not speak ja"),
        (
            json!({"language": "auto", "languageHints": ["en", "fr"]}),
            "languageHints: listener does not transcribe fr",
        ),
        (
            json!({"language": "auto", "languageHints": ["en", "ja"]}),
            "languageHints: speaker does not speak ja",
        ),
        (json!({"participants": vec!["ann"; 33]}), "participants: must list at most 32 identities"),
        (json!({"answers": "all"}), "answers: nobody can be answered who is not among participants"),
        (
            json!({"participants": ["ann"], "answers": ["ann", "bob"]}),
            "answers: nobody can be answered who is not among participants",
        ),
        (json!({"language": "auto", "languageHints": vec!["en"; 9]}), "languageHints: must be at most 8"),
        (json!({"language": "de", "languageHints": ["de"]}), "languageHints: only with language auto"),
        (json!({"languageHints": ["de"]}), "languageHints: only with language auto"),
        (json!({"voice": "hal"}), "voice: \"hal\" is none of joe, ann"),
        (json!({"voice": "../joe"}), "voice: must be of letters, digits, and . _ - :"),
        (json!({"voice": ""}), "voice: must have 1 to 64 bytes"),
        (json!({"instructions": "x".repeat(4_001)}), "instructions: must have 1 to 4000 bytes"),
        (json!({"instructions": " "}), "instructions: must have 1 to 4000 bytes"),
        (words(101), "vocabulary: must have at most 100 words"),
        (
            json!({"vocabulary": ["x".repeat(65)]}),
            "vocabulary: a word must have 1 to 64 bytes, without control characters",
        ),
        (
            json!({"vocabulary": ["a\nb"]}),
            "vocabulary: a word must have 1 to 64 bytes, without control characters",
        ),
        (json!({"stt": ["hal"]}), "stt: \"hal\" is none of deepgram, moonshine"),
        (json!({"stt": []}), "stt: must name at least one provider, each once"),
        (json!({"stt": ["moonshine", "moonshine"]}), "stt: must name at least one provider, each once"),
        (json!({"tts": ["piper"]}), "tts: this gateway has none"),
    ] {
        assert_eq!(options(asked).unwrap_err(), reason);
    }
    assert!(options(words(100)).is_ok());
    assert!(options(json!({"instructions": "x".repeat(4_000)})).is_ok());
}

#[test]
fn a_language_that_cannot_be_spoken_can_be_captioned() {
    assert!(options(json!({"language": "ja", "mode": "captions"})).is_ok());
    assert!(options(json!({"language": "fr", "mode": "captions"})).is_err());
}

#[test]
fn a_language_that_is_found_out_needs_an_stt_that_does() {
    let offer = Offer { stt: Some(Arc::new(Speaks(&["en"]))), ..offer() };
    let given = SessionOptions { language: Some("auto".into()), ..SessionOptions::default() };

    let refused = Options::new(given, &offer).unwrap_err();

    assert_eq!(refused.to_string(), "language: listener does not find out which language is spoken");
}

#[test]
fn an_utterance_has_the_tag_that_was_asked_for_if_the_language_is_the_same_else_that_which_was_heard() {
    let heard = |tag: &str| Language::parse(tag).unwrap();
    let english = options(json!({"language": "en-GB"})).unwrap();
    assert_eq!(english.tag(None), "en-GB");
    assert_eq!(english.tag(Some(&heard("en"))), "en-GB");
    assert_eq!(english.tag(Some(&heard("de"))), "de");

    let auto = options(json!({"language": "auto", "languageHints": ["en-US", "de-AT"]})).unwrap();
    assert_eq!(auto.tag(None), "und");
    assert_eq!(auto.tag(Some(&heard("de"))), "de-AT");
    assert_eq!(auto.tag(Some(&heard("ja"))), "ja");
    assert_eq!(auto.tags(), ["en-US", "de-AT"]);
}

#[test]
fn an_answer_is_spoken_in_the_language_that_was_heard_if_the_tts_speaks_it() {
    let mut options = options(json!({"language": "auto"})).unwrap();
    let mut spoken_after = |tag: Option<&str>| {
        options.hear(tag.map(|tag| Language::parse(tag).unwrap()).as_ref());
        options.speech("?".into(), None, &offer()).language.map(|language| language.to_string())
    };

    assert_eq!(spoken_after(Some("de")).as_deref(), Some("de"));
    assert_eq!(spoken_after(Some("ja")), None);
    assert_eq!(spoken_after(None), None);
}

#[test]
fn a_language_of_a_record_stays_though_the_providers_of_today_do_not_know_it() {
    let given = SessionOptions { language: Some("fr".into()), ..SessionOptions::default() };
    assert_eq!(Options::of_record(given, &offer()).tag(None), "fr");

    let broken = SessionOptions { language: Some("de_DE".into()), ..SessionOptions::default() };
    assert_eq!(Options::of_record(broken, &offer()).tag(None), "en-US");
}

#[test]
fn participants_are_heard_and_answered_as_asked() {
    let [ann, bob] = ["ann", "bob"].map(|name| Identity::parse(name).unwrap());
    for (asked, ann_is, bob_is) in [
        (json!({}), (false, false), (false, false)),
        (json!({"participants": "owner", "answers": "owner"}), (false, false), (false, false)),
        (json!({"participants": "all"}), (true, false), (true, false)),
        (json!({"participants": "all", "answers": ["ann"]}), (true, true), (true, false)),
        (json!({"participants": ["ann"], "answers": ["ann"]}), (true, true), (false, false)),
        (json!({"participants": "all", "answers": "all"}), (true, true), (true, true)),
    ] {
        let options = options(asked.clone()).unwrap();
        for (identity, expected) in [(&ann, ann_is), (&bob, bob_is)] {
            assert_eq!(
                (options.hears(identity), options.answers(identity)),
                expected,
                "{identity} of {asked}"
            );
        }
    }
}

#[test]
fn a_gateway_that_transcribes_the_owner_only_says_so() {
    let given = SessionOptions { participants: Some(Participants::ALL), ..SessionOptions::default() };

    let refused = Options::new(given, &Offer { participants: 0, ..offer() });

    assert_eq!(
        refused.unwrap_err().to_string(),
        "participants: this gateway transcribes nobody but the owner"
    );
}
