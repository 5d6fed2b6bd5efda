//! June's own TTS service: `POST /synthesize-binary`, else `POST /synthesize`, both with a WAV file as the answer.
//!
//! Which of them there is depends on the service's version: it is asked once, and again when the answer is 404. The
//! routes and fields are those of `services/june-tts` in the repository `ozzuworld/June`: `/synthesize-binary` from
//! 2025-10-14, where `/synthesize` answers with JSON, and `/synthesize` alone from 2025-10-19. Versions since November
//! 2025 speak into a LiveKit room and answer `/synthesize` with JSON, which is [`ProviderError::Garbled`] here.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::Serialize;

use super::{
    SpeechRequest, TextToSpeech, TtsServiceConfig,
    speech::{self, Pieces},
    wav,
};
use crate::{
    language::Language,
    providers::{ProviderError, http, registry::LoadContext},
    secret::Secret,
};

/// XTTS-v2's own.
const SAMPLE_RATE_HZ: u32 = 24_000;

/// What XTTS-v2 speaks.
const LANGUAGES: [&str; 17] =
    ["ar", "cs", "de", "en", "es", "fr", "hi", "hu", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh"];

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn TextToSpeech>, ProviderError> {
    let config = context.config.tts_services.june.as_ref();
    let config = config.ok_or_else(|| ProviderError::Unavailable("TTS_SERVICE_URL is not set".into()))?;
    Ok(Arc::new(JuneTts::new(config)?))
}

pub(super) struct JuneTts {
    routes: Arc<Routes>,
    token: Option<Secret>,
}

struct Routes {
    client: Client,
    urls: [Url; 2],
    authorization: Option<HeaderValue>,
    /// The one of `urls` that there is, as far as is known.
    found: AtomicUsize,
}

#[derive(Serialize)]
struct Body {
    text: String,
    language: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<String>,
    speed: f32,
}

impl JuneTts {
    pub(super) fn new(config: &TtsServiceConfig) -> Result<Self, ProviderError> {
        let token = config.token.as_ref();
        let authorization = token
            .map(|token| speech::header(&format!("Bearer {}", token.expose()), "TTS_SERVICE_TOKEN"))
            .transpose()?;
        let routes = Routes {
            client: http::client()?,
            urls: [
                speech::url(&config.url, "/synthesize-binary", "TTS_SERVICE_URL")?,
                speech::url(&config.url, "/synthesize", "TTS_SERVICE_URL")?,
            ],
            authorization,
            found: AtomicUsize::new(0),
        };
        Ok(Self { routes: Arc::new(routes), token: token.cloned() })
    }
}

impl Routes {
    /// The answer of the route that there is; 404 if there is none.
    async fn post(&self, body: &Body) -> Result<Response, ProviderError> {
        let found = self.found.load(Ordering::Relaxed);
        let response = self.post_to(found, body).await?;
        if response.status() != StatusCode::NOT_FOUND {
            return Ok(response);
        }
        let other = 1 - found;
        let response = self.post_to(other, body).await?;
        if response.status().is_success() {
            self.found.store(other, Ordering::Relaxed);
        }
        Ok(response)
    }

    async fn post_to(&self, route: usize, body: &Body) -> Result<Response, ProviderError> {
        let mut call = self.client.post(self.urls[route].clone()).json(body);
        if let Some(authorization) = &self.authorization {
            call = call.header(AUTHORIZATION, authorization);
        }
        call.send().await.map_err(|error| http::connection(&error))
    }
}

impl TextToSpeech for JuneTts {
    fn name(&self) -> &'static str {
        "june"
    }

    fn sample_rate_hz(&self) -> u32 {
        SAMPLE_RATE_HZ
    }

    fn speaks(&self, language: &Language) -> bool {
        LANGUAGES.contains(&language.primary())
    }

    fn synthesize(&self, request: SpeechRequest) -> Pieces {
        let language = request.language.as_ref().map_or("en", Language::primary);
        if !LANGUAGES.contains(&language) {
            // The service would speak it as English.
            return ProviderError::Refused(format!("it does not speak {language}")).into_stream();
        }
        let body = Body {
            text: request.text.clone(),
            language: if language == "zh" { "zh-cn" } else { language }.to_owned(),
            speaker: request.voice.clone(),
            speed: 1.0,
        };
        let (routes, token) = (Arc::clone(&self.routes), self.token.clone());
        speech::speech(&request, SAMPLE_RATE_HZ, async move {
            let response = http::accepted(routes.post(&body).await?, token.as_ref()).await?;
            wav::response(response, SAMPLE_RATE_HZ, token.as_ref()).await
        })
    }
}

#[cfg(test)]
mod tests {
    use test_support::tts_servers::{KEY, Script, TtsServer, Vendor};

    use super::*;
    use crate::providers::tts::suite::{speak, start};

    async fn paths(vendor: Vendor, sentences: usize) -> Vec<String> {
        let (server, provider) = start(vendor, Script::default()).await;
        for _ in 0..sentences {
            speak(&provider, SpeechRequest::text("Good morning.")).await.1.unwrap();
        }
        server.requests().into_iter().map(|request| request.path).collect()
    }

    #[tokio::test]
    async fn the_service_is_asked_once_which_route_it_has() {
        assert_eq!(paths(Vendor::June, 2).await, ["/synthesize-binary", "/synthesize-binary"]);
        assert_eq!(paths(Vendor::LaterJune, 2).await, ["/synthesize-binary", "/synthesize", "/synthesize"]);
    }

    #[tokio::test]
    async fn a_route_that_has_gone_is_looked_for_again() {
        let server = TtsServer::start(Vendor::LaterJune, Script::default()).await;
        let config = TtsServiceConfig { url: server.url(), token: Some(Secret::new(KEY)) };
        let mut june = JuneTts::new(&config).unwrap();
        let routes = Arc::get_mut(&mut june.routes).unwrap();
        // The one that was found is the second, and is /synthesize-binary.
        routes.urls.swap(0, 1);
        routes.found.store(1, Ordering::Relaxed);
        let provider: Arc<dyn TextToSpeech> = Arc::new(june);

        for _ in 0..2 {
            assert_eq!(speak(&provider, SpeechRequest::text("Good morning.")).await.1, Ok(()));
        }

        let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
        assert_eq!(paths, ["/synthesize-binary", "/synthesize", "/synthesize"]);
    }

    #[tokio::test]
    async fn the_body_is_that_of_the_service() {
        let (server, provider) = start(Vendor::June, Script::default()).await;
        let language = Some(Language::parse("zh-Hant-TW").unwrap());

        let request = SpeechRequest { language, voice: Some("Ana".into()), ..SpeechRequest::text("早安") };
        assert_eq!(speak(&provider, request).await.1, Ok(()));

        let body = serde_json::json!({ "text": "早安", "language": "zh-cn", "speaker": "Ana", "speed": 1.0 });
        assert_eq!(server.requests()[0].bodies, [body]);
    }

    #[tokio::test]
    async fn a_language_that_the_service_would_speak_as_english_is_refused() {
        let (server, provider) = start(Vendor::June, Script::default()).await;
        let language = Some(Language::parse("sv").unwrap());

        let request = SpeechRequest { language, ..SpeechRequest::text("God morgon.") };

        let refused = ProviderError::Refused("it does not speak sv".into());
        assert_eq!(speak(&provider, request).await.1, Err(refused));
        assert_eq!(server.requests().len(), 0);
    }
}
