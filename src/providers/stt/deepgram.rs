//! Deepgram's streaming transcription (`/v1/listen`).
//!
//! Read on 2026-11-25: <https://developers.deepgram.com/reference/speech-to-text/listen-streaming>,
//! <https://developers.deepgram.com/docs/finalize>, `/docs/close-stream`, `/docs/keyterm`,
//! `/docs/nova-3-language-prompting`, `/docs/models-languages-overview` and
//! `/docs/stt-troubleshooting-websocket-data-and-net-errors`; deepgram-sdk 7.17.0 for Python.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use futures::stream::BoxStream;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::{
    SpeechToText, SpokenLanguage, SttEvent, SttRequest, Transcript, languages,
    streaming::{self, Endpoint, Heard, Protocol, append},
};
use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
    language::Language,
    providers::{ProviderError, registry::LoadContext, websocket},
    secret::Secret,
};

const URL: &str = "https://api.deepgram.com";
const MODEL: &str = "nova-3";

/// Silence within an utterance after which a piece of it is final, in milliseconds. The default, 10, breaks sentences.
const ENDPOINTING_MS: &str = "300";

/// Key terms may have 500 tokens together, which have about four letters each, in some languages fewer. More than that
/// is refused.
const MAX_TERMS: usize = 100;
const MAX_TERM_BYTES: usize = 1000;

/// The languages with a Nova-3 model of their own.
const NOVA_3: &[&str] = &[
    "ar", "be", "bg", "bn", "bs", "ca", "cs", "da", "de", "de-CH", "el", "en", "en-AU", "en-CA", "en-GB",
    "en-IN", "en-NZ", "en-US", "es", "es-419", "et", "fa", "fi", "fr", "fr-CA", "gu", "he", "hi", "hr", "hu",
    "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "mr", "ms", "ne", "nl", "nl-BE", "no", "pa", "pl", "pt",
    "pt-BR", "pt-PT", "ro", "ru", "sk", "sl", "sr", "sv", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi",
    "zh", "zh-CN", "zh-HK", "zh-Hans", "zh-Hant", "zh-TW",
];

/// What Nova-3 finds out by itself (`language=multi`), and takes as hints.
const NOVA_3_MULTI: &[&str] = &[
    "af", "ar", "be", "bg", "bn", "bs", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr",
    "gl", "gu", "he", "hi", "hr", "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "mr", "ms", "nl",
    "nl-BE", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "ta", "te", "th", "tl", "tr", "uk", "vi",
    "xh", "zh", "zh-HK", "zu",
];

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn SpeechToText>, ProviderError> {
    let services = &context.config.stt_services;
    let Some(key) = &services.deepgram.key else {
        return Err(ProviderError::Unavailable("DEEPGRAM_API_KEY is not set".into()));
    };
    let base = services.deepgram.base_url.as_deref().unwrap_or(URL);
    let model = services.deepgram.model.as_deref().unwrap_or(MODEL);
    Ok(Arc::new(Deepgram::new(base, key, model, services.diarize)?))
}

pub(super) struct Deepgram {
    endpoint: Endpoint,
    model: String,
    diarize: bool,
}

impl Deepgram {
    pub(super) fn new(base: &str, key: &Secret, model: &str, diarize: bool) -> Result<Self, ProviderError> {
        let endpoint = Endpoint::new(base, "/v1/listen", &format!("Token {}", key.expose()), key)?;
        Ok(Self { endpoint, model: model.to_owned(), diarize })
    }

    /// Whether it is the model whose languages are listed here. Others refuse what they do not transcribe.
    fn is_nova_3(&self) -> bool {
        matches!(self.model.as_str(), "nova-3" | "nova-3-general")
    }

    fn query(&self, request: &SttRequest) -> Vec<(&'static str, String)> {
        let mut query = vec![
            ("model", self.model.clone()),
            ("encoding", "linear16".to_owned()),
            ("sample_rate", SAMPLE_RATE_HZ.to_string()),
            ("channels", "1".to_owned()),
            ("interim_results", "true".to_owned()),
            ("smart_format", "true".to_owned()),
            ("endpointing", ENDPOINTING_MS.to_owned()),
        ];
        match &request.language {
            SpokenLanguage::Known(language) if !self.is_nova_3() => {
                query.push(("language", language.to_string()))
            }
            SpokenLanguage::Known(language) => match languages::code(language, NOVA_3) {
                Some(code) => query.push(("language", code.to_owned())),
                None => self.detect(std::slice::from_ref(language), &mut query),
            },
            SpokenLanguage::Auto { hints } => self.detect(hints, &mut query),
        }
        if self.diarize {
            query.push(("diarize_model", "latest".to_owned()));
        }
        let parameter = if self.model.starts_with("nova-3") { "keyterm" } else { "keywords" };
        let mut bytes = 0;
        let terms = request.vocabulary.iter().take(MAX_TERMS).take_while(|term| {
            bytes += term.len();
            bytes <= MAX_TERM_BYTES
        });
        query.extend(terms.map(|term| (parameter, term.clone())));
        query
    }

    fn detect(&self, hints: &[Language], query: &mut Vec<(&'static str, String)>) {
        if self.model.starts_with("nova-") {
            query.push(("language", "multi".to_owned()));
        }
        if self.is_nova_3() {
            let hints = hints.iter().filter_map(|hint| languages::code(hint, NOVA_3_MULTI));
            query.extend(hints.map(|hint| ("language_hint", hint.to_owned())));
        }
    }
}

impl SpeechToText for Deepgram {
    fn name(&self) -> &'static str {
        "deepgram"
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        match language {
            SpokenLanguage::Auto { .. } if self.is_nova_3() => languages::include(NOVA_3_MULTI, language),
            SpokenLanguage::Known(_) if self.is_nova_3() => {
                languages::include(NOVA_3, language) || languages::include(NOVA_3_MULTI, language)
            }
            // What the others find out by themselves includes English.
            SpokenLanguage::Auto { .. } => languages::include(&["en"], language),
            SpokenLanguage::Known(_) => true,
        }
    }

    fn is_streaming(&self) -> bool {
        true
    }

    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let listening = Listening { key: self.endpoint.key.clone(), said: Said::default() };
        streaming::open(self.endpoint.clone(), self.query(&request), listening, audio)
    }
}

/// An utterance, of which pieces are final.
struct Listening {
    key: Secret,
    said: Said,
}

/// The pieces that are final, put together.
#[derive(Clone, Default)]
struct Said {
    text: String,
    language: Option<Language>,
    words: usize,
    /// The words' confidences together.
    confidence: f32,
    /// How many words each speaker said.
    speakers: BTreeMap<u64, usize>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Message {
    Results {
        channel: Channel,
        #[serde(default)]
        is_final: bool,
        #[serde(default)]
        from_finalize: bool,
    },
    /// The answer to `CloseStream`.
    Metadata {},
    Error {
        #[serde(default)]
        description: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Channel {
    alternatives: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    transcript: String,
    #[serde(default)]
    languages: Vec<String>,
    #[serde(default)]
    words: Vec<Word>,
}

#[derive(Deserialize)]
struct Word {
    #[serde(default)]
    confidence: f32,
    speaker: Option<u64>,
}

impl Protocol for Listening {
    const SAMPLES: RangeInclusive<usize> = 1..=SAMPLE_RATE_HZ as usize;
    const END: &'static [&'static str] = &[r#"{"type":"Finalize"}"#, r#"{"type":"CloseStream"}"#];

    fn read(&mut self, message: &str, is_sent: bool) -> Result<Heard, ProviderError> {
        let message = serde_json::from_str(message)
            .map_err(|_| ProviderError::Garbled("a message that is not of its protocol".into()))?;
        match message {
            Message::Results { channel, is_final, from_finalize } => {
                let mut said = self.said.clone();
                if let Some(best) = channel.alternatives.into_iter().next() {
                    said.add(best);
                }
                if is_final {
                    self.said.clone_from(&said);
                }
                // There need not be a result of `Finalize`, if all is final before.
                Ok(match from_finalize {
                    true => Heard::Final(said.transcript()),
                    false if said.text.is_empty() => Heard::Nothing,
                    false => Heard::Interim(said.transcript()),
                })
            }
            Message::Metadata {} if is_sent => Ok(Heard::Final(self.said.clone().transcript())),
            Message::Metadata {} | Message::Other => Ok(Heard::Nothing),
            Message::Error { description } => {
                Err(ProviderError::Connection(websocket::quoted(&description, Some(&self.key))))
            }
        }
    }

    /// 1008 (`DATA-0000`): it is not audio. 1011 (`NET-0000`, `NET-0001`): too slow, on either side.
    fn closed(&self, frame: Option<CloseFrame>) -> ProviderError {
        websocket::closed(frame, Some(&self.key))
    }
}

impl Said {
    fn add(&mut self, piece: Alternative) {
        append(&mut self.text, &piece.transcript);
        let heard = piece.languages.first().and_then(|tag| Language::parse(tag).ok());
        self.language = self.language.take().or(heard);
        for word in piece.words {
            self.words += 1;
            self.confidence += word.confidence;
            if let Some(speaker) = word.speaker {
                *self.speakers.entry(speaker).or_default() += 1;
            }
        }
    }

    fn transcript(self) -> Transcript {
        let most = self.speakers.into_iter().max_by_key(|(_, words)| *words);
        Transcript {
            text: self.text,
            language: self.language,
            speaker: most.map(|(speaker, _)| speaker.to_string()),
            confidence: (self.words > 0).then(|| self.confidence / self.words as f32),
        }
    }
}

#[cfg(test)]
mod tests {
    use test_support::{SttScript, SttServer, SttVendor};

    use super::*;
    use crate::providers::stt::suite::{self, known};

    #[tokio::test]
    async fn language_and_vocabulary_are_passed_on() {
        let multi = |hints: &[&str]| {
            let hints = hints.iter().map(|tag| Language::parse(tag).unwrap()).collect();
            SpokenLanguage::Auto { hints }
        };
        for (model, language, expected) in [
            ("nova-3", known("de-AT"), vec!["language=de"]),
            ("nova-3", known("de-CH"), vec!["language=de-CH"]),
            ("nova-3", known("nb-NO"), vec!["language=no"]),
            ("nova-3", known("gl"), vec!["language=multi", "language_hint=gl"]),
            ("nova-3", multi(&[]), vec!["language=multi"]),
            (
                "nova-3",
                multi(&["en-GB", "tlh", "de"]),
                vec!["language=multi", "language_hint=en", "language_hint=de"],
            ),
            ("nova-2", multi(&["en"]), vec!["language=multi"]),
            ("nova-2", known("en-GB"), vec!["language=en-GB"]),
            ("base", multi(&[]), vec![]),
        ] {
            let deepgram = Deepgram::new(URL, &Secret::new("k"), model, false).unwrap();
            let query = deepgram.query(&SttRequest { language, vocabulary: Vec::new() });

            let languages = query.iter().filter(|(name, _)| name.starts_with("language"));
            let languages: Vec<_> = languages.map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(languages, expected, "{model}");
        }
    }

    #[tokio::test]
    async fn no_more_words_are_sent_than_it_takes() {
        let deepgram = Deepgram::new(URL, &Secret::new("k"), MODEL, false).unwrap();
        let sent = |vocabulary: Vec<String>| {
            let query = deepgram.query(&SttRequest { vocabulary, ..SttRequest::default() });
            query.iter().filter(|(name, _)| *name == "keyterm").count()
        };

        assert_eq!(sent(vec!["Dashwood".into(), "Mentra Live".into()]), 2);
        assert_eq!(sent(vec!["June".into(); 300]), MAX_TERMS);
        assert_eq!(sent(vec!["Donaudampfschifffahrt".into(); 100]), MAX_TERM_BYTES / 21);
    }

    #[tokio::test]
    async fn speaker_confidence_and_language_come_through() {
        let server =
            SttServer::start(SttVendor::Deepgram, SttScript::saying("Wo ist der Bahnhof? Dort.")).await;
        let deepgram = Deepgram::new(&server.url(), &suite::key(), MODEL, true).unwrap();

        let events = suite::transcribe(&deepgram, SttRequest::default(), &suite::speech()).await;

        let Some(Ok(SttEvent::Final(heard))) = events.last() else { panic!("{events:?}") };
        assert_eq!(heard.speaker.as_deref(), Some("0"));
        assert_eq!(heard.language, Language::parse("en").ok());
        assert!((heard.confidence.unwrap() - 0.9).abs() < 0.01, "{heard:?}");
        assert_eq!(server.requests()[0].query("diarize_model"), ["latest"]);
    }

    #[test]
    fn the_summary_ends_an_utterance_all_of_which_is_final_already() {
        let mut listening = Listening { key: Secret::new("k"), said: Said::default() };
        let result =
            r#"{"type":"Results","is_final":true,"channel":{"alternatives":[{"transcript":"Yes."}]}}"#;
        let summary = r#"{"type":"Metadata","request_id":"0193","duration":1.0,"channels":1}"#;

        assert!(matches!(listening.read(summary, false), Ok(Heard::Nothing)));
        assert!(matches!(listening.read(result, false), Ok(Heard::Interim(_))));
        let Ok(Heard::Final(heard)) = listening.read(summary, true) else { panic!() };
        assert_eq!(heard, Transcript::text("Yes."));
    }

    #[test]
    fn it_transcribes_what_its_model_does() {
        let nova_3 = Deepgram::new(URL, &Secret::new("k"), MODEL, false).unwrap();

        for language in ["en-US", "de-AT", "zh-Hant-TW", "gl", "fil"] {
            assert!(nova_3.transcribes(&known(language)), "{language}");
        }
        assert!(!nova_3.transcribes(&known("tlh")) && !nova_3.transcribes(&known("la")));
    }
}
