//! AssemblyAI's streaming transcription (`/v3/ws`).
//!
//! Read on 2026-11-25: <https://www.assemblyai.com/docs/streaming/message-sequence>,
//! `/docs/streaming/common-session-errors-and-closures`, `/docs/streaming/multilingual-transcription`,
//! `/docs/streaming/keyterms-prompting` and `/docs/faq/language-support-for-real-time-transcription`; assemblyai 1.8.2
//! for Python.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use futures::stream::BoxStream;
use serde::Deserialize;
use serde_json::json;
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

const URL: &str = "https://streaming.assemblyai.com";
const MODEL: &str = "universal-3-5-pro";

const MAX_TERMS: usize = 100;
const MAX_TERM_CHARS: usize = 50;
const MAX_LANGUAGES: usize = 10;

/// The most turns of an utterance. A turn ends at a pause of about a second.
const MAX_TURNS: usize = 1000;

const UNIVERSAL_3_5: &[&str] = &[
    "ar", "da", "de", "en", "es", "fi", "fr", "he", "hi", "it", "ja", "nl", "no", "pt", "sv", "tr", "ur",
    "vi", "zh",
];
const SIX: &[&str] = &["de", "en", "es", "fr", "it", "pt"];

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn SpeechToText>, ProviderError> {
    let services = &context.config.stt_services;
    let Some(key) = &services.assemblyai.key else {
        return Err(ProviderError::Unavailable("ASSEMBLYAI_API_KEY is not set".into()));
    };
    let base = services.assemblyai.base_url.as_deref().unwrap_or(URL);
    let model = services.assemblyai.model.as_deref().unwrap_or(MODEL);
    Ok(Arc::new(AssemblyAi::new(base, key, model, services.diarize)?))
}

pub(super) struct AssemblyAi {
    endpoint: Endpoint,
    model: String,
    diarize: bool,
}

impl AssemblyAi {
    pub(super) fn new(base: &str, key: &Secret, model: &str, diarize: bool) -> Result<Self, ProviderError> {
        let endpoint = Endpoint::new(base, "/v3/ws", key.expose(), key)?;
        Ok(Self { endpoint, model: model.to_owned(), diarize })
    }

    fn languages(&self) -> &'static [&'static str] {
        match self.model.as_str() {
            "universal-streaming-english" => &["en"],
            "universal-streaming-multilingual" | "u3-rt-pro" | "u3-pro" => SIX,
            "whisper-rt" => languages::WHISPER,
            _ => UNIVERSAL_3_5,
        }
    }

    fn query(&self, request: &SttRequest) -> Vec<(&'static str, String)> {
        let mut query = vec![
            ("speech_model", self.model.clone()),
            ("sample_rate", SAMPLE_RATE_HZ.to_string()),
            ("encoding", "pcm_s16le".to_owned()),
        ];
        if self.model.starts_with("universal-streaming") {
            // The others punctuate always.
            query.push(("format_turns", "true".to_owned()));
        }
        if self.languages().len() > 1 {
            query.push(("language_detection", "true".to_owned()));
        }
        let expected = match &request.language {
            SpokenLanguage::Known(language) => std::slice::from_ref(language),
            SpokenLanguage::Auto { hints } => hints,
        };
        let codes: Vec<_> = expected
            .iter()
            .filter_map(|language| languages::code(language, self.languages()))
            .take(MAX_LANGUAGES)
            .collect();
        if !codes.is_empty() && (self.model.starts_with("universal-3") || self.model.starts_with("u3-")) {
            query.push(("language_codes", json!(codes).to_string()));
        }
        if self.diarize {
            query.push(("speaker_labels", "true".to_owned()));
        }
        let terms = request.vocabulary.iter().filter(|term| term.chars().count() <= MAX_TERM_CHARS);
        let terms: Vec<_> = terms.take(MAX_TERMS).collect();
        if !terms.is_empty() {
            query.push(("keyterms_prompt", json!(terms).to_string()));
        }
        query
    }
}

impl SpeechToText for AssemblyAi {
    fn name(&self) -> &'static str {
        "assemblyai"
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        languages::include(self.languages(), language)
    }

    fn is_streaming(&self) -> bool {
        true
    }

    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let turns = Turns { key: self.endpoint.key.clone(), turns: BTreeMap::new() };
        streaming::open(self.endpoint.clone(), self.query(&request), turns, audio)
    }
}

/// The turns of an utterance. AssemblyAI ends a turn where it hears a pause, and revises the turn until then, and once
/// more to punctuate it.
struct Turns {
    key: Secret,
    turns: BTreeMap<u64, Turn>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Message {
    Turn(Turn),
    Termination {},
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Turn {
    turn_order: u64,
    end_of_turn: bool,
    transcript: String,
    #[serde(default)]
    words: Vec<Word>,
    language_code: Option<String>,
    speaker_label: Option<String>,
}

#[derive(Deserialize)]
struct Word {
    text: String,
    #[serde(default)]
    confidence: f32,
}

/// `"type": "Error"`, or no type.
#[derive(Deserialize)]
struct Failure {
    error_code: Option<u16>,
    error: String,
}

impl Protocol for Turns {
    /// 50 to 1000 ms; anything else is refused (3007).
    const SAMPLES: RangeInclusive<usize> = SAMPLE_RATE_HZ as usize / 20..=SAMPLE_RATE_HZ as usize;
    const END: &'static [&'static str] = &[r#"{"type":"ForceEndpoint"}"#, r#"{"type":"Terminate"}"#];

    fn read(&mut self, message: &str, _: bool) -> Result<Heard, ProviderError> {
        if let Ok(failure) = serde_json::from_str::<Failure>(message) {
            return Err(self.failed(failure.error_code, &failure.error));
        }
        let message = serde_json::from_str(message)
            .map_err(|_| ProviderError::Garbled("a message that is not of its protocol".into()))?;
        match message {
            Message::Turn(turn) => {
                self.turns.insert(turn.turn_order, turn);
                if self.turns.len() > MAX_TURNS {
                    return Err(ProviderError::Garbled("too many turns".into()));
                }
                let so_far = self.transcript();
                Ok(if so_far.text.is_empty() { Heard::Nothing } else { Heard::Interim(so_far) })
            }
            Message::Termination {} => Ok(Heard::Final(self.transcript())),
            Message::Other => Ok(Heard::Nothing),
        }
    }

    fn closed(&self, frame: Option<CloseFrame>) -> ProviderError {
        match frame {
            Some(frame) => self.failed(Some(frame.code.into()), &frame.reason),
            None => websocket::closed(None, None),
        }
    }
}

impl Turns {
    fn transcript(&self) -> Transcript {
        let mut text = String::new();
        for turn in self.turns.values() {
            // Of a turn that is not over, `transcript` can lack words that may still change.
            if turn.end_of_turn || turn.words.is_empty() {
                append(&mut text, &turn.transcript);
            } else {
                turn.words.iter().for_each(|word| append(&mut text, &word.text));
            }
        }
        let words = || self.turns.values().flat_map(|turn| &turn.words);
        let confidence: f32 = words().map(|word| word.confidence).sum();
        let count = words().count();
        let language = self.turns.values().find_map(|turn| turn.language_code.as_deref());
        Transcript {
            text,
            language: language.and_then(|code| Language::parse(code).ok()),
            speaker: self.turns.values().find_map(|turn| turn.speaker_label.clone()),
            confidence: (count > 0).then(|| confidence / count as f32),
        }
    }

    fn failed(&self, code: Option<u16>, reason: &str) -> ProviderError {
        let reason = match (code, websocket::quoted(reason, Some(&self.key))) {
            (Some(code), reason) => format!("{code}: {reason}"),
            (None, reason) => reason,
        };
        match code {
            Some(1008 | 3009) if reason.contains("concurrent") => {
                ProviderError::RateLimited { reason, retry_after: None }
            }
            Some(4029 | 4102) => ProviderError::RateLimited { reason, retry_after: None },
            Some(1008 | 3006 | 4000..=4003 | 4100 | 4101) => ProviderError::Refused(reason),
            _ => ProviderError::Connection(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use test_support::{SttFault, SttScript, SttServer, SttVendor};

    use super::*;
    use crate::providers::stt::suite::{self, known};

    fn query(model: &str, request: &SttRequest) -> BTreeMap<&'static str, String> {
        AssemblyAi::new(URL, &Secret::new("k"), model, true).unwrap().query(request).into_iter().collect()
    }

    #[test]
    fn language_and_vocabulary_are_passed_on() {
        let vocabulary = vec!["Dashwood".to_owned(), "x".repeat(51), "Mentra Live".to_owned()];
        let request = SttRequest { language: known("de-AT"), vocabulary };

        let universal = query(MODEL, &request);
        assert_eq!(universal["language_codes"], r#"["de"]"#);
        assert_eq!(universal["keyterms_prompt"], r#"["Dashwood","Mentra Live"]"#);
        assert_eq!(universal["speaker_labels"], "true");
        assert_eq!(universal.get("format_turns"), None);

        let older = query("universal-streaming-multilingual", &request);
        assert_eq!((older.get("language_codes"), older["format_turns"].as_str()), (None, "true"));
        assert_eq!(query("universal-streaming-english", &request).get("language_detection"), None);
    }

    #[test]
    fn it_transcribes_what_its_model_does() {
        let transcribes = |model: &str, language: &str| {
            AssemblyAi::new(URL, &Secret::new("k"), model, false).unwrap().transcribes(&known(language))
        };

        assert!(transcribes(MODEL, "ja") && transcribes(MODEL, "de-AT") && !transcribes(MODEL, "ru"));
        assert!(transcribes("u3-rt-pro", "it") && !transcribes("u3-rt-pro", "ja"));
        assert!(transcribes("whisper-rt", "ru") && !transcribes("universal-streaming-english", "de"));
    }

    #[tokio::test]
    async fn what_it_refuses_after_the_upgrade_is_told_apart() {
        for (code, reason, is_retryable) in [
            (1008, "Unauthorized Connection: Missing Authorization header", false),
            (1008, "Unauthorized Connection: Too many concurrent sessions", true),
            (3006, "Invalid Message: []", false),
            (3009, "Unauthorized Connection: Too many concurrent sessions", true),
            (3005, "Session Cancelled: An error occurred", true),
        ] {
            let script = SttScript::failing(SttFault::Reports(code, reason.to_owned()));
            let server = SttServer::start(SttVendor::AssemblyAi, script).await;
            let provider = AssemblyAi::new(&server.url(), &suite::key(), MODEL, false).unwrap();

            let events = suite::transcribe(&provider, SttRequest::default(), &suite::speech()).await;

            let Some(Err(error)) = events.last() else { panic!("{events:?}") };
            assert_eq!(error.is_retryable(), is_retryable, "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn a_turn_is_replaced_by_its_later_forms() {
        let mut turns = Turns { key: Secret::new("k"), turns: BTreeMap::new() };
        let turn = |order: u64, is_over: bool, transcript: &str, word: &str| {
            json!({"type": "Turn", "turn_order": order, "turn_is_formatted": false, "end_of_turn": is_over,
                "transcript": transcript, "end_of_turn_confidence": 0.5,
                "words": [{"text": word, "start": 0, "end": 1, "confidence": 0.9, "word_is_final": true}]})
            .to_string()
        };
        for message in [
            turn(0, false, "", "hel"),
            turn(0, true, "hello", "hello"),
            turn(1, false, "", "there"),
            turn(0, true, "Hello.", "Hello."),
        ] {
            turns.read(&message, false).unwrap();
        }

        let Ok(Heard::Final(heard)) = turns.read(r#"{"type":"Termination"}"#, true) else { panic!() };
        assert_eq!(heard.text, "Hello. there");
    }
}
