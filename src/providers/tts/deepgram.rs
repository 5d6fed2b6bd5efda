//! Deepgram's Aura, by `POST /v1/speak`.
//!
//! A model is a voice of one language, `aura-2-thalia-en`. With `container=none` the body is PCM16LE and comes while it
//! is made. Read on 2026-11-25: <https://developers.deepgram.com/reference/text-to-speech/speak-request>,
//! <https://developers.deepgram.com/docs/tts-models>, <https://developers.deepgram.com/docs/errors>, and the package
//! `deepgram-sdk` 7.17.0 of PyPI.

use std::sync::Arc;

use reqwest::{
    Client, Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::json;

use super::{
    DeepgramTtsConfig, SpeechRequest, TextToSpeech,
    speech::{self, Pieces},
};
use crate::{
    language::Language,
    providers::{ProviderError, http, registry::LoadContext},
    secret::Secret,
};

const SAMPLE_RATE_HZ: u32 = 24_000;
const DEEPGRAM_URL: &str = "https://api.deepgram.com";

/// A voice for each language of Aura-2.
const VOICES: [&str; 7] = [
    "aura-2-thalia-en",
    "aura-2-celeste-es",
    "aura-2-viktoria-de",
    "aura-2-agathe-fr",
    "aura-2-rhea-nl",
    "aura-2-livia-it",
    "aura-2-fujin-ja",
];

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn TextToSpeech>, ProviderError> {
    let config = context.config.tts_services.deepgram.as_ref();
    let config = config.ok_or_else(|| ProviderError::Unavailable("DEEPGRAM_API_KEY is not set".into()))?;
    Ok(Arc::new(Aura::new(config)?))
}

pub(super) struct Aura {
    client: Client,
    url: Url,
    key: Secret,
    header: HeaderValue,
    voice: String,
}

impl Aura {
    pub(super) fn new(config: &DeepgramTtsConfig) -> Result<Self, ProviderError> {
        // STT uses the same setting for a WebSocket.
        let base = config.base_url.as_deref().unwrap_or(DEEPGRAM_URL);
        let base = base.strip_prefix("ws").map_or_else(|| base.to_owned(), |rest| format!("http{rest}"));
        Ok(Self {
            client: http::client()?,
            url: speech::url(&base, "/v1/speak", "DEEPGRAM_BASE_URL")?,
            key: config.key.clone(),
            header: speech::header(&format!("Token {}", config.key.expose()), "DEEPGRAM_API_KEY")?,
            voice: config.voice.clone(),
        })
    }

    /// The request's voice, the default one if it speaks the language, or another that does. The error is the language
    /// that the voice does not speak.
    fn voice<'a>(&'a self, request: &'a SpeechRequest) -> Result<&'a str, ProviderError> {
        let Some(language) = &request.language else {
            return Ok(request.voice.as_deref().unwrap_or(&self.voice));
        };
        match &request.voice {
            Some(voice) if is_of(voice, language) => Ok(voice),
            Some(voice) => {
                Err(ProviderError::Refused(format!("the voice {voice} does not speak {language}")))
            }
            None => std::iter::once(self.voice.as_str())
                .chain(VOICES)
                .find(|voice| is_of(voice, language))
                .ok_or_else(|| ProviderError::Refused(format!("no voice speaks {language}"))),
        }
    }
}

/// Whether the voice's name ends with this language.
fn is_of(voice: &str, language: &Language) -> bool {
    voice.rsplit_once('-').is_some_and(|(_, spoken)| spoken == language.primary())
}

impl TextToSpeech for Aura {
    fn name(&self) -> &'static str {
        "deepgram"
    }

    fn sample_rate_hz(&self) -> u32 {
        SAMPLE_RATE_HZ
    }

    fn speaks(&self, language: &Language) -> bool {
        is_of(&self.voice, language) || VOICES.iter().any(|voice| is_of(voice, language))
    }

    fn synthesize(&self, request: SpeechRequest) -> Pieces {
        let voice = match self.voice(&request) {
            Ok(voice) => voice,
            Err(error) => return error.into_stream(),
        };
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("model", voice)
            .append_pair("encoding", "linear16")
            .append_pair("sample_rate", &SAMPLE_RATE_HZ.to_string())
            .append_pair("container", "none");
        let call =
            self.client.post(url).header(AUTHORIZATION, &self.header).json(&json!({ "text": request.text }));
        let key = self.key.clone();
        speech::speech(&request, SAMPLE_RATE_HZ, async move {
            let response = call.send().await.map_err(|error| http::connection(&error))?;
            let response = http::accepted(response, Some(&key)).await?;
            speech::pcm(response, SAMPLE_RATE_HZ, Some(&key)).await
        })
    }
}

#[cfg(test)]
mod tests {
    use test_support::tts_servers::{Script, Vendor};

    use super::*;
    use crate::providers::tts::suite::{speak, start};

    fn request(language: Option<&str>, voice: Option<&str>) -> SpeechRequest {
        let language = language.map(|tag| Language::parse(tag).unwrap());
        SpeechRequest { language, voice: voice.map(str::to_owned), ..SpeechRequest::text("Hallo.") }
    }

    #[tokio::test]
    async fn a_voice_of_the_language_is_chosen_and_one_of_another_refused() {
        let (server, provider) = start(Vendor::Deepgram, Script::default()).await;

        for (language, voice) in [
            (None, None),
            (Some("en-GB"), None),
            (Some("de-AT"), None),
            (Some("de"), Some("aura-2-julius-de")),
            (None, Some("aura-2-julius-de")),
        ] {
            assert_eq!(speak(&provider, request(language, voice)).await.1, Ok(()));
        }

        let requests = server.requests();
        let models: Vec<_> = requests.iter().filter_map(|request| request.parameter("model")).collect();
        assert_eq!(
            models,
            [
                "aura-2-thalia-en",
                "aura-2-thalia-en",
                "aura-2-viktoria-de",
                "aura-2-julius-de",
                "aura-2-julius-de"
            ]
        );
        let english = speak(&provider, request(Some("de"), Some("aura-2-zeus-en"))).await.1;
        let reason = "the voice aura-2-zeus-en does not speak de".to_owned();
        assert_eq!(english, Err(ProviderError::Refused(reason)));
    }

    #[test]
    fn the_url_of_stt_is_taken_as_well() {
        for (base, url) in [
            ("wss://deepgram.example", "https://deepgram.example/v1/speak"),
            ("ws://deepgram.example/", "http://deepgram.example/v1/speak"),
            ("https://deepgram.example", "https://deepgram.example/v1/speak"),
        ] {
            let config = DeepgramTtsConfig {
                base_url: Some(base.into()),
                key: Secret::new("k"),
                voice: "aura-2-thalia-en".into(),
            };
            assert_eq!(Aura::new(&config).unwrap().url.as_str(), url);
        }
    }
}
