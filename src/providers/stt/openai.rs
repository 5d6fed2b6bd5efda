//! Any endpoint with OpenAI's `/audio/transcriptions`: OpenAI's own, and servers of Whisper models.
//!
//! Read on 2026-11-25: <https://platform.openai.com/docs/api-reference/audio/createTranscription>,
//! in the form of openai 3.57.0 for Python, which is generated from it. vLLM streams chunks of its own
//! (`vllm/entrypoints/openai`, `TranscriptionStreamResponse`).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use reqwest::{Client, Response, StatusCode, Url, header::CONTENT_TYPE, multipart::Form};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    SpeechToText, SpokenLanguage, SttEvent, SttRequest, Transcript,
    batch::{self, Events, MAX_ANSWER},
    languages::{self, WHISPER},
};
use crate::{
    audio::Pcm,
    providers::{ProviderError, http, registry::LoadContext},
    secret::Secret,
};

const URL: &str = "https://api.openai.com/v1";
/// OpenAI's own, which it can stream; and the name that other servers have for theirs.
const MODEL: &str = "gpt-transcribe";
const MODEL_ELSEWHERE: &str = "whisper-1";

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn SpeechToText>, ProviderError> {
    let config = &context.config.stt_services.openai;
    if config.base_url.is_none() && config.key.is_none() {
        return Err(ProviderError::Unavailable(
            "neither STT_OPENAI_API_KEY nor STT_OPENAI_BASE_URL is set".into(),
        ));
    }
    let base = config.base_url.as_deref().unwrap_or(URL);
    let default = if base == URL { MODEL } else { MODEL_ELSEWHERE };
    let model = config.model.as_deref().unwrap_or(default);
    Ok(Arc::new(OpenAi::new(base, config.key.clone(), model)?))
}

pub(super) struct OpenAi {
    endpoint: Arc<Endpoint>,
}

struct Endpoint {
    client: Client,
    url: Url,
    key: Option<Secret>,
    model: String,
    /// Whether it refuses `stream`.
    is_plain: AtomicBool,
}

impl OpenAi {
    pub(super) fn new(base: &str, key: Option<Secret>, model: &str) -> Result<Self, ProviderError> {
        let url = Url::parse(&format!("{base}/audio/transcriptions"))
            .map_err(|_| ProviderError::Unavailable("STT_OPENAI_BASE_URL is not valid".into()))?;
        let endpoint = Endpoint {
            client: http::client()?,
            url,
            key,
            model: model.to_owned(),
            is_plain: AtomicBool::new(false),
        };
        Ok(Self { endpoint: Arc::new(endpoint) })
    }
}

impl SpeechToText for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        languages::include(WHISPER, language)
    }

    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let endpoint = self.endpoint.clone();
        batch::open(audio, |utterance| async move { endpoint.transcribe(&request, utterance).await })
    }
}

impl Endpoint {
    async fn transcribe(&self, request: &SttRequest, utterance: Pcm) -> Result<Events, ProviderError> {
        let streams = !self.is_plain.load(Ordering::Relaxed);
        let mut response = self.send(request, &utterance, streams).await?;
        if streams && matches!(response.status(), StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)
        {
            // OpenAI ignores `stream` where a model has none. Other servers may know nothing of it.
            let plain = self.send(request, &utterance, false).await?;
            if plain.status().is_success() {
                self.is_plain.store(true, Ordering::Relaxed);
                response = plain;
            }
        }
        let response = http::accepted(response, self.key.as_ref()).await?;
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if media_type.is_some_and(|media_type| media_type.starts_with("text/event-stream")) {
            return Ok(Answer::new(response, utterance, self.key.clone()).events());
        }
        let body = http::read(response, MAX_ANSWER).await?;
        Ok(batch::finally(batch::transcript(&body, &utterance)?))
    }

    async fn send(
        &self,
        request: &SttRequest,
        utterance: &Pcm,
        streams: bool,
    ) -> Result<Response, ProviderError> {
        let mut form = Form::new()
            .part("file", batch::wav_file(utterance))
            .text("model", self.model.clone())
            .text("response_format", "json");
        if streams {
            form = form.text("stream", "true");
        }
        // It takes several languages, and words as a list.
        let takes_lists = self.model.starts_with("gpt-transcribe");
        match &request.language {
            SpokenLanguage::Known(language) => {
                if let Some(code) = languages::code(language, WHISPER) {
                    form = form.text("language", code);
                }
            }
            SpokenLanguage::Auto { hints } if takes_lists => {
                let codes = hints.iter().filter_map(|hint| languages::code(hint, WHISPER));
                form = codes.fold(form, |form, code| form.text("languages[]", code));
            }
            SpokenLanguage::Auto { .. } => {}
        }
        if takes_lists {
            form = request.vocabulary.iter().fold(form, |form, word| form.text("keywords[]", word.clone()));
        } else if !request.vocabulary.is_empty() {
            form = form.text("prompt", request.vocabulary.join(", "));
        }
        let mut post = self.client.post(self.url.clone()).multipart(form);
        if let Some(key) = &self.key {
            post = post.bearer_auth(key.expose());
        }
        post.send().await.map_err(|error| http::connection(&error))
    }
}

/// An answer as server-sent events.
struct Answer {
    pieces: BoxStream<'static, reqwest::Result<Bytes>>,
    /// What is read, from the beginning of a line.
    unread: Vec<u8>,
    /// How many bytes came.
    length: usize,
    is_whole: bool,
    text: String,
    utterance: Pcm,
    key: Option<Secret>,
}

/// What a line of the answer adds.
enum Line {
    Nothing,
    Delta,
    Done(Transcript),
}

impl Answer {
    fn new(response: Response, utterance: Pcm, key: Option<Secret>) -> Self {
        let pieces = response.bytes_stream().boxed();
        Self { pieces, unread: Vec::new(), length: 0, is_whole: false, text: String::new(), utterance, key }
    }

    fn events(self) -> Events {
        stream::unfold(Some(self), |answer| async {
            let mut answer = answer?;
            let event = answer.next().await;
            let is_last = !matches!(event, Ok(SttEvent::Interim(_)));
            Some((event, (!is_last).then_some(answer)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<SttEvent, ProviderError> {
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                match self.read(&line)? {
                    Line::Nothing => {}
                    Line::Delta => return Ok(SttEvent::Interim(Transcript::text(self.text.trim()))),
                    Line::Done(heard) => return Ok(SttEvent::Final(heard)),
                }
            }
            match self.pieces.next().await {
                Some(piece) => {
                    let piece = piece.map_err(|error| http::connection(&error))?;
                    self.length += piece.len();
                    if self.length > MAX_ANSWER {
                        return Err(ProviderError::Garbled("the answer is too long".into()));
                    }
                    self.unread.extend_from_slice(&piece);
                }
                None if self.is_whole || self.unread.is_empty() => {
                    return Err(ProviderError::Connection("the connection ended early".into()));
                }
                None => {
                    // The last line need not have an end.
                    self.is_whole = true;
                    self.unread.push(b'\n');
                }
            }
        }
    }

    fn read(&mut self, line: &[u8]) -> Result<Line, ProviderError> {
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(Line::Nothing) };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            return Ok(Line::Done(batch::said(&self.text, &self.utterance)));
        }
        let event: Value = serde_json::from_slice(data)
            .map_err(|_| ProviderError::Garbled("an event that is not JSON".into()))?;
        if !event["error"].is_null() {
            let reason = http::reason(data, self.key.as_ref());
            return Err(ProviderError::Connection(reason.unwrap_or_else(|| "it reports an error".into())));
        }
        if event["type"] == "transcript.text.done" {
            let heard = batch::transcript(data, &self.utterance)?;
            return Ok(Line::Done(heard));
        }
        // OpenAI's delta, and vLLM's.
        let delta = match event["type"].as_str() {
            Some("transcript.text.delta") => &event["delta"],
            _ => &event["choices"][0]["delta"]["content"],
        };
        let Some(delta) = delta.as_str().filter(|delta| !delta.is_empty()) else { return Ok(Line::Nothing) };
        self.text.push_str(delta);
        Ok(Line::Delta)
    }
}

#[cfg(test)]
mod tests {
    use test_support::{SttFault, SttScript, SttServer, SttVendor};

    use super::*;
    use crate::{
        language::Language,
        providers::stt::suite::{self, known},
    };

    async fn served(vendor: SttVendor, script: SttScript) -> (SttServer, OpenAi) {
        let server = SttServer::start(vendor, script).await;
        let openai = OpenAi::new(&server.url(), Some(suite::key()), "whisper-1").unwrap();
        (server, openai)
    }

    #[tokio::test]
    async fn language_and_vocabulary_are_passed_on() {
        let (server, openai) = served(SttVendor::OpenAi, SttScript::saying("Hallo.")).await;
        let vocabulary = vec!["Dashwood".to_owned(), "Mentra Live".to_owned()];

        let request = SttRequest { language: known("de-AT"), vocabulary };
        suite::transcribe(&openai, request, &suite::speech()).await;

        let request = &server.requests()[0];
        assert_eq!(request.field("language"), Some("de"));
        assert_eq!(request.field("prompt"), Some("Dashwood, Mentra Live"));
        assert_eq!((request.field("model"), request.field("stream")), (Some("whisper-1"), Some("true")));
    }

    #[tokio::test]
    async fn gpt_transcribe_gets_lists_and_says_which_language_it_heard() {
        let server = SttServer::start(SttVendor::OpenAi, SttScript::saying("Hallo.")).await;
        let openai = OpenAi::new(&server.url(), Some(suite::key()), MODEL).unwrap();
        let hints = ["de-AT", "tlh", "en"].map(|tag| Language::parse(tag).unwrap()).into();

        let request =
            SttRequest { language: SpokenLanguage::Auto { hints }, vocabulary: vec!["Dashwood".into()] };
        let events = suite::transcribe(&openai, request, &suite::speech()).await;

        let request = &server.requests()[0];
        assert_eq!(request.fields("languages[]"), ["de", "en"]);
        assert_eq!((request.fields("keywords[]"), request.field("prompt")), (vec!["Dashwood"], None));
        let heard = Transcript { language: Language::parse("de").ok(), ..Transcript::text("Hallo.") };
        assert_eq!(events.last(), Some(&Ok(SttEvent::Final(heard))));
    }

    #[tokio::test]
    async fn servers_that_do_not_stream_answer_at_once() {
        for vendor in [SttVendor::OpenAiPlain, SttVendor::OpenAiStrict] {
            let (server, openai) = served(vendor, SttScript::saying("Hello.")).await;

            for _ in 0..2 {
                let events = suite::transcribe(&openai, SttRequest::default(), &suite::speech()).await;
                assert_eq!(events, [Ok(SttEvent::Final(Transcript::text("Hello.")))]);
            }

            // The one that refuses `stream` is not asked for it again.
            let streams: Vec<_> =
                server.requests().iter().map(|request| request.field("stream").is_some()).collect();
            let expected: &[bool] =
                if vendor == SttVendor::OpenAiStrict { &[true, false, false] } else { &[true, true] };
            assert_eq!(streams, expected);
        }
    }

    #[tokio::test]
    async fn a_refusal_that_has_nothing_to_do_with_streaming_is_final() {
        for (status, asked) in [(401, 1), (429, 1), (500, 1), (400, 2)] {
            let script = SttScript::failing(SttFault::Refuses(status, r#"{"detail":"no"}"#.into()));
            let (server, openai) = served(SttVendor::OpenAi, script).await;

            let events = suite::transcribe(&openai, SttRequest::default(), &suite::speech()).await;

            assert!(matches!(&events[..], [Err(_)]), "{events:?}");
            assert_eq!(server.requests().len(), asked, "{status}");
        }
    }

    #[tokio::test]
    async fn a_stream_of_vllm_is_understood() {
        let (_server, openai) = served(SttVendor::Vllm, SttScript::saying("Hello there.")).await;

        let events = suite::transcribe(&openai, SttRequest::default(), &suite::speech()).await;

        assert_eq!(events.last(), Some(&Ok(SttEvent::Final(Transcript::text("Hello there.")))));
        assert!(events.len() > 2, "{events:?}");
    }

    #[tokio::test]
    async fn an_error_within_the_stream_is_an_error() {
        let script =
            SttScript::failing(SttFault::Reports(500, format!("no GPU for {}", test_support::STT_KEY)));
        let (_server, openai) = served(SttVendor::OpenAi, script).await;

        let events = suite::transcribe(&openai, SttRequest::default(), &suite::speech()).await;

        assert_eq!(events.last(), Some(&Err(ProviderError::Connection("no GPU for …".into()))));
    }

    #[tokio::test]
    async fn what_is_made_up_over_silence_is_left_out() {
        let (_server, openai) = served(SttVendor::OpenAi, SttScript::saying("Thank you.")).await;

        let events = suite::transcribe(&openai, SttRequest::default(), &[1; 16_000]).await;

        assert_eq!(events.last(), Some(&Ok(SttEvent::Final(Transcript::default()))));
    }
}
