//! ElevenLabs, by the WebSocket `/v1/text-to-speech/{voice}/stream-input`.
//!
//! ```text
//!   ──▶ {"text": " "}               begins
//!   ──▶ {"text": "A sentence. "}
//!   ──▶ {"text": ""}                ends
//!   ◀── {"audio": "…", …}           PCM16LE as Base64, several times
//!   ◀── {"isFinal": true}           or an error, {"message": "…", "error": "quota_exceeded", "code": 1008}
//! ```
//!
//! By `auto_mode` a sentence is synthesized as soon as it comes. Read on 2026-11-25:
//! <https://elevenlabs.io/docs/api-reference/text-to-speech/v-1-text-to-speech-voice-id-stream-input>,
//! <https://elevenlabs.io/docs/overview/models>, `fern/apis/api/asyncapi.yml` of the repository
//! `elevenlabs/elevenlabs-docs`, and the package `elevenlabs` 2.78.0 of PyPI; for errors, which these leave out,
//! <https://github.com/elevenlabs/elevenlabs-python/issues/167>.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{SinkExt, StreamExt, stream};
use reqwest::{Url, header::HeaderValue};
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::{
    Message,
    client::IntoClientRequest,
    handshake::client::Request,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{
    ElevenLabsConfig, SpeechRequest, TextToSpeech,
    speech::{self, Pieces},
};
use crate::{
    audio::pcm::PcmBytes,
    language::Language,
    providers::{
        ProviderError,
        registry::LoadContext,
        websocket::{self, Socket},
    },
    secret::Secret,
};

const SAMPLE_RATE_HZ: u32 = 24_000;
const ELEVENLABS_URL: &str = "https://api.elevenlabs.io";

/// What the models of version 2.5 speak.
const LANGUAGES: [&str; 32] = [
    "ar", "bg", "cs", "da", "de", "el", "en", "es", "fi", "fil", "fr", "hi", "hr", "hu", "id", "it", "ja",
    "ko", "ms", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sv", "ta", "tr", "uk", "vi", "zh",
];
/// What of these the model `eleven_multilingual_v2` does not speak.
const LANGUAGES_SINCE_2_5: [&str; 3] = ["hu", "no", "vi"];
const ENGLISH_MODELS: [&str; 3] = ["eleven_flash_v2", "eleven_turbo_v2", "eleven_monolingual_v1"];

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn TextToSpeech>, ProviderError> {
    let config = context.config.tts_services.elevenlabs.as_ref();
    let config = config.ok_or_else(|| ProviderError::Unavailable("ELEVENLABS_API_KEY is not set".into()))?;
    Ok(Arc::new(ElevenLabs::new(config)?))
}

pub(super) struct ElevenLabs {
    base: Url,
    header: HeaderValue,
    config: ElevenLabsConfig,
}

impl ElevenLabs {
    pub(super) fn new(config: &ElevenLabsConfig) -> Result<Self, ProviderError> {
        let base = config.base_url.as_deref().unwrap_or(ELEVENLABS_URL);
        let base = base.strip_prefix("http").map_or_else(|| base.to_owned(), |rest| format!("ws{rest}"));
        Ok(Self {
            base: speech::url(&base, "/v1/text-to-speech", "ELEVENLABS_BASE_URL")?,
            header: speech::header(config.key.expose(), "ELEVENLABS_API_KEY")?,
            config: config.clone(),
        })
    }

    fn upgrade(&self, request: &SpeechRequest) -> Result<Request, ProviderError> {
        let voice = request.voice.as_deref().unwrap_or(&self.config.voice);
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(voice).push("stream-input");
        }
        let mut query = url.query_pairs_mut();
        query
            .append_pair("model_id", &self.config.model)
            .append_pair("output_format", "pcm_24000")
            .append_pair("auto_mode", "true");
        // Other models refuse it.
        if let Some(language) = &request.language
            && self.config.model.ends_with("_v2_5")
        {
            query.append_pair("language_code", code(language));
        }
        drop(query);
        let mut upgrade = url
            .as_str()
            .into_client_request()
            .map_err(|_| ProviderError::Refused("the voice cannot be part of a URL".into()))?;
        upgrade.headers_mut().insert("xi-api-key", self.header.clone());
        Ok(upgrade)
    }
}

/// ElevenLabs' code of a language, which is of ISO 639-1 where there is one.
fn code(language: &Language) -> &str {
    match language.primary() {
        "nb" => "no",
        "tl" => "fil",
        "cmn" => "zh",
        primary => primary,
    }
}

impl TextToSpeech for ElevenLabs {
    fn name(&self) -> &'static str {
        "elevenlabs"
    }

    fn sample_rate_hz(&self) -> u32 {
        SAMPLE_RATE_HZ
    }

    fn speaks(&self, language: &Language) -> bool {
        let (model, code) = (self.config.model.as_str(), code(language));
        match model {
            _ if ENGLISH_MODELS.contains(&model) => code == "en",
            "eleven_multilingual_v2" => LANGUAGES.contains(&code) && !LANGUAGES_SINCE_2_5.contains(&code),
            _ => LANGUAGES.contains(&code),
        }
    }

    fn synthesize(&self, request: SpeechRequest) -> Pieces {
        let upgrade = match self.upgrade(&request) {
            Ok(upgrade) => upgrade,
            Err(error) => return error.into_stream(),
        };
        let key = self.config.key.clone();
        // Text has to end with a space.
        let sentence = format!("{} ", request.text.trim());
        speech::speech(&request, SAMPLE_RATE_HZ, async move {
            let socket = websocket::connect(upgrade, Some(&key)).await?;
            let mut connection = Connection { socket, key, decoder: PcmBytes::default() };
            connection.send([" ", &sentence, ""]).await;
            Ok(connection.pieces())
        })
    }
}

struct Connection {
    socket: Socket,
    key: Secret,
    decoder: PcmBytes,
}

/// A message of ElevenLabs; other fields align letters with the sound.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerMessage {
    audio: Option<String>,
    is_final: Option<bool>,
    error: Option<String>,
    message: Option<String>,
}

enum Received {
    Samples(Vec<i16>),
    /// The last ones.
    Last(Vec<i16>),
}

impl Connection {
    async fn send<const N: usize>(&mut self, texts: [&str; N]) {
        for text in texts {
            let message = json!({ "text": text }).to_string();
            if self.socket.send(Message::text(message)).await.is_err() {
                // Why is read from the connection.
                return;
            }
        }
    }

    fn pieces(self) -> Pieces {
        stream::unfold(Some(self), |connection| async {
            let mut connection = connection?;
            match connection.receive().await {
                Ok(Received::Samples(samples)) => Some((Ok(samples), Some(connection))),
                Ok(Received::Last(samples)) => Some((Ok(samples), None)),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn receive(&mut self) -> Result<Received, ProviderError> {
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(websocket::failed(error, Some(&self.key))),
                None => return Err(websocket::closed(None, Some(&self.key))),
            };
            match message {
                Message::Text(text) => return self.decode(&text),
                Message::Binary(_) => return Err(ProviderError::Garbled("a binary message".into())),
                Message::Close(frame) => return self.closed(frame),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn decode(&mut self, text: &str) -> Result<Received, ProviderError> {
        let garbled = |what: &str| ProviderError::Garbled(what.to_owned());
        let message: ServerMessage =
            serde_json::from_str(text).map_err(|_| garbled("a message that is not of its protocol"))?;
        if let Some(error) = message.error {
            return Err(refused(&error, message.message.as_deref().unwrap_or_default(), &self.key));
        }
        let audio = BASE64_STANDARD
            .decode(message.audio.unwrap_or_default())
            .map_err(|_| garbled("audio that is not Base64"))?;
        let samples = self.decoder.decode(&audio);
        Ok(if message.is_final == Some(true) { Received::Last(samples) } else { Received::Samples(samples) })
    }

    /// The end of the sound is said by [`ServerMessage::is_final`], or by a normal closure without it.
    fn closed(&self, frame: Option<CloseFrame>) -> Result<Received, ProviderError> {
        match frame {
            Some(CloseFrame { code: CloseCode::Normal, .. }) => Ok(Received::Last(Vec::new())),
            Some(CloseFrame { code: CloseCode::Policy, reason }) => Err(refused(&reason, "", &self.key)),
            frame => Err(websocket::closed(frame, Some(&self.key))),
        }
    }
}

/// `error` is a word such as `quota_exceeded`, or the reason of a close frame.
fn refused(error: &str, message: &str, key: &Secret) -> ProviderError {
    let reason = if message.is_empty() { error.to_owned() } else { format!("{error}: {message}") };
    let reason = websocket::quoted(&reason, Some(key));
    let has = |word: &&str| error.to_ascii_lowercase().contains(*word);
    if ["quota", "limit", "concurrent", "busy"].iter().any(has) {
        return ProviderError::RateLimited { reason, retry_after: None };
    }
    if ["timeout", "internal"].iter().any(has) {
        return ProviderError::Connection(reason);
    }
    ProviderError::Refused(reason)
}

#[cfg(test)]
mod tests {
    use test_support::tts_servers::{Bytes, Fault, KEY, Script, TtsServer, Vendor};

    use super::*;
    use crate::providers::tts::suite::{speak, start};

    fn elevenlabs(url: &str, model: &str) -> ElevenLabs {
        let config = ElevenLabsConfig {
            base_url: Some(url.to_owned()),
            key: Secret::new(KEY),
            model: model.to_owned(),
            voice: "george".into(),
        };
        ElevenLabs::new(&config).unwrap()
    }

    /// How a sentence ends at a server that sends these messages in place of sound.
    async fn end(messages: Vec<Message>) -> Result<(), ProviderError> {
        let (_server, provider) = start(Vendor::ElevenLabs, Script::failing(Fault::Messages(messages))).await;
        speak(&provider, SpeechRequest::text("Good morning.")).await.1
    }

    fn close(code: u16, reason: &str) -> Message {
        Message::Close(Some(CloseFrame { code: code.into(), reason: reason.to_owned().into() }))
    }

    #[tokio::test]
    async fn a_sentence_is_one_text_between_a_space_and_an_empty_one() {
        let (server, provider) = start(Vendor::ElevenLabs, Script::default()).await;
        let language = Some(Language::parse("nb").unwrap());

        let request = SpeechRequest { language, ..SpeechRequest::text(" God morgen. ") };
        assert_eq!(speak(&provider, request).await.1, Ok(()));

        let request = &server.requests()[0];
        assert_eq!(request.path, "/v1/text-to-speech/george/stream-input");
        let query = [
            ("model_id", "eleven_flash_v2_5"),
            ("output_format", "pcm_24000"),
            ("auto_mode", "true"),
            ("language_code", "no"),
        ];
        assert_eq!(request.query, query.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(
            request.bodies,
            [json!({ "text": " " }), json!({ "text": "God morgen. " }), json!({ "text": "" })]
        );
    }

    #[tokio::test]
    async fn a_model_that_takes_no_language_is_not_told_one() {
        let server = TtsServer::start(Vendor::ElevenLabs, Script::default()).await;
        let provider: Arc<dyn TextToSpeech> = Arc::new(elevenlabs(&server.url(), "eleven_multilingual_v2"));
        let language = Some(Language::parse("de").unwrap());

        let request = SpeechRequest { language, ..SpeechRequest::text("Guten Morgen.") };
        assert_eq!(speak(&provider, request).await.1, Ok(()));

        assert_eq!(server.requests()[0].parameter("language_code"), None);
    }

    #[test]
    fn a_voice_is_one_segment_of_the_path() {
        let provider = elevenlabs("https://elevenlabs.example/proxy/", "eleven_flash_v2_5");
        for (voice, path) in [
            ("george", "/proxy/v1/text-to-speech/george/stream-input"),
            ("a/b?c#d e", "/proxy/v1/text-to-speech/a%2Fb%3Fc%23d%20e/stream-input"),
            ("..", "/proxy/v1/text-to-speech/stream-input"),
        ] {
            let request = SpeechRequest { voice: Some(voice.into()), ..SpeechRequest::text("Hi.") };
            let upgrade = provider.upgrade(&request).unwrap();
            assert_eq!((upgrade.uri().scheme_str(), upgrade.uri().path()), (Some("wss"), path));
        }
    }

    #[test]
    fn each_model_speaks_its_own_languages() {
        for (model, speaks) in [
            ("eleven_flash_v2_5", ["en", "de", "hu", "fil", "nb"].as_slice()),
            ("eleven_multilingual_v2", &["en", "de", "fil"]),
            ("eleven_flash_v2", &["en"]),
        ] {
            let provider = elevenlabs("http://127.0.0.1:1", model);
            let all = ["en", "de", "hu", "fil", "nb", "tlh"];
            let spoken: Vec<_> =
                all.into_iter().filter(|tag| provider.speaks(&Language::parse(tag).unwrap())).collect();
            assert_eq!(spoken, speaks, "{model}");
        }
    }

    #[tokio::test]
    async fn a_reached_quota_is_told_from_a_refusal_and_from_a_fault_of_the_service() {
        let error = |error: &str| {
            let message = format!("about {KEY}");
            Message::text(json!({ "message": message, "error": error, "code": 1008 }).to_string())
        };
        let limited =
            |reason: &str| Err(ProviderError::RateLimited { reason: reason.to_owned(), retry_after: None });
        let refused = |reason: &str| Err(ProviderError::Refused(reason.to_owned()));
        let quota = "This request exceeds your quota.";

        assert_eq!(end(vec![error("quota_exceeded")]).await, limited("quota_exceeded: about …"));
        assert_eq!(
            end(vec![error("too_many_concurrent_requests")]).await,
            limited("too_many_concurrent_requests: about …")
        );
        assert_eq!(end(vec![close(1008, quota)]).await, limited(quota));
        assert_eq!(end(vec![error("voice_not_found")]).await, refused("voice_not_found: about …"));
        assert_eq!(end(vec![close(1008, "Invalid API key")]).await, refused("Invalid API key"));
        let fault = end(vec![error("internal_server_error")]).await;
        assert_eq!(fault, Err(ProviderError::Connection("internal_server_error: about …".into())));
    }

    #[tokio::test]
    async fn whatever_the_server_sends_a_sentence_ends_with_an_error() {
        let garbled = [
            Message::binary(vec![0xff; 64]),
            Message::text("not JSON"),
            Message::text("[]"),
            Message::text(r#"{"audio": 5}"#),
            Message::text(r#"{"audio": "no Base64!"}"#),
            Message::text(format!(r#"{{"audio": "{}"}}"#, "A".repeat(5 * 1024 * 1024))),
            Message::binary(Bytes::from(vec![0; 5 * 1024 * 1024])),
        ];
        for message in garbled {
            let shown = format!("{message:?}").chars().take(60).collect::<String>();
            let end = end(vec![message]).await;
            assert!(matches!(end, Err(ProviderError::Garbled(_))), "{shown}: {end:?}");
        }
        for code in [1001, 1002, 1003, 1009, 1011, 1012, 1013, 3000, 4999] {
            let end = end(vec![close(code, "why not")]).await;
            assert_eq!(end, Err(ProviderError::Connection(format!("closed with {code}: why not"))));
        }
        assert!(matches!(end(vec![Message::Close(None)]).await, Err(ProviderError::Connection(_))));
    }

    #[tokio::test]
    async fn a_normal_closure_ends_a_sentence_and_without_sound_it_is_a_failure() {
        let audio = json!({ "audio": BASE64_STANDARD.encode([1, 2, 3, 4]) }).to_string();

        assert_eq!(end(vec![Message::text(audio), close(1000, "")]).await, Ok(()));
        assert_eq!(end(vec![close(1000, "")]).await, Err(ProviderError::Empty));
        let pings = vec![Message::Ping(Bytes::new()), Message::Pong(Bytes::new()), close(1000, "")];
        assert_eq!(end(pings).await, Err(ProviderError::Empty));
    }
}
