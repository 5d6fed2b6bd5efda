//! Any endpoint with OpenAI's `POST /audio/speech`: OpenAI's own, or a server of one's own that speaks like it.
//!
//! By `response_format: pcm` the body is PCM16LE, mono, at 24 kHz, and comes while it is made. The model finds the
//! language from the text. Route and fields are those of the package `openai` 3.57.0 of PyPI (`resources/audio/speech.py`,
//! read on 2026-11-25), by which OpenAI's own models of this endpoint shut down on 2027-01-06. Rate and languages are
//! those of the guide, <https://platform.openai.com/docs/guides/text-to-speech>.

use std::sync::Arc;

use reqwest::{
    Client, Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::Serialize;

use super::{
    OpenAiTtsConfig, SpeechRequest, TextToSpeech,
    speech::{self, Pieces},
};
use crate::{
    language::Language,
    providers::{ProviderError, http, registry::LoadContext},
    secret::Secret,
};

const SAMPLE_RATE_HZ: u32 = 24_000;
const OPENAI_URL: &str = "https://api.openai.com/v1";

/// What OpenAI's models speak: the languages of Whisper.
const LANGUAGES: [&str; 58] = [
    "af", "ar", "az", "be", "bg", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi",
    "fr", "gl", "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "kk", "kn", "ko", "lt", "lv", "mi",
    "mk", "mr", "ms", "nb", "ne", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "sw", "ta",
    "th", "tl", "tr", "uk", "ur", "vi", "zh",
];

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn TextToSpeech>, ProviderError> {
    let config = context.config.tts_services.openai.as_ref().ok_or_else(|| {
        ProviderError::Unavailable("neither TTS_OPENAI_API_KEY nor TTS_OPENAI_BASE_URL is set".into())
    })?;
    Ok(Arc::new(OpenAiSpeech::new(config)?))
}

pub(super) struct OpenAiSpeech {
    client: Client,
    url: Url,
    key: Option<(Secret, HeaderValue)>,
    config: OpenAiTtsConfig,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a str,
    voice: &'a str,
    response_format: &'static str,
}

impl OpenAiSpeech {
    pub(super) fn new(config: &OpenAiTtsConfig) -> Result<Self, ProviderError> {
        let key = config.key.as_ref().map(|key| {
            let header = speech::header(&format!("Bearer {}", key.expose()), "TTS_OPENAI_API_KEY")?;
            Ok::<_, ProviderError>((key.clone(), header))
        });
        Ok(Self {
            client: http::client()?,
            url: speech::url(
                config.base_url.as_deref().unwrap_or(OPENAI_URL),
                "/audio/speech",
                "TTS_OPENAI_BASE_URL",
            )?,
            key: key.transpose()?,
            config: config.clone(),
        })
    }
}

impl TextToSpeech for OpenAiSpeech {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn sample_rate_hz(&self) -> u32 {
        SAMPLE_RATE_HZ
    }

    fn speaks(&self, language: &Language) -> bool {
        match &self.config.languages {
            Some(languages) => languages.iter().any(|spoken| spoken.is_like(language)),
            None => LANGUAGES.contains(&language.primary()),
        }
    }

    fn synthesize(&self, request: SpeechRequest) -> Pieces {
        let mut call = self.client.post(self.url.clone()).json(&Body {
            model: &self.config.model,
            input: &request.text,
            voice: request.voice.as_deref().unwrap_or(&self.config.voice),
            response_format: "pcm",
        });
        if let Some((_, header)) = &self.key {
            call = call.header(AUTHORIZATION, header);
        }
        let key = self.key.as_ref().map(|(key, _)| key.clone());
        speech::speech(&request, SAMPLE_RATE_HZ, async move {
            let response = call.send().await.map_err(|error| http::connection(&error))?;
            let response = http::accepted(response, key.as_ref()).await?;
            speech::pcm(response, SAMPLE_RATE_HZ, key.as_ref()).await
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use test_support::tts_servers::{Script, Vendor};

    use super::*;
    use crate::providers::tts::suite::{speak, start};

    #[tokio::test]
    async fn the_body_asks_for_pcm() {
        let (server, provider) = start(Vendor::OpenAi, Script::default()).await;

        assert_eq!(speak(&provider, SpeechRequest::text("Good morning.")).await.1, Ok(()));

        let body = json!({
            "model": "gpt-4o-mini-tts",
            "input": "Good morning.",
            "voice": "alloy",
            "response_format": "pcm",
        });
        assert_eq!(server.requests()[0].bodies, [body]);
    }

    #[test]
    fn the_languages_of_another_model_are_a_setting() {
        let language = |tag| Language::parse(tag).unwrap();
        let mut config = OpenAiTtsConfig {
            base_url: None,
            key: None,
            model: "kokoro".into(),
            voice: "af_heart".into(),
            languages: None,
        };
        assert!(OpenAiSpeech::new(&config).unwrap().speaks(&language("de")));

        config.languages = Some(vec![language("en-US"), language("fr")]);

        let provider = OpenAiSpeech::new(&config).unwrap();
        assert!(provider.speaks(&language("en-GB")) && !provider.speaks(&language("de")));
    }
}
