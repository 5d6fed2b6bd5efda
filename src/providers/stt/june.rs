//! June's own STT service: `june-stt`, in the two forms in which it gave a text back.
//!
//! Its source is `services/june-stt` of <https://github.com/ozzuworld/June>, read on 2026-11-25: `/v1/transcribe` of
//! version 3.0 (commit caff5b66), and `/v1/audio/transcriptions` of 2025-10-31 to 2025-11-07 (commit bb26b748). Which
//! one a service has is found out with the first utterance.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::stream::BoxStream;
use reqwest::{Client, Response, StatusCode, Url, multipart::Form};
use tokio::sync::mpsc;

use super::{
    SpeechToText, SpokenLanguage, SttEvent, SttRequest,
    batch::{self, Events, MAX_ANSWER},
    languages::{self, WHISPER},
};
use crate::{
    audio::Pcm,
    providers::{ProviderError, http, registry::LoadContext},
    secret::Secret,
};

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn SpeechToText>, ProviderError> {
    let config = &context.config.stt_services.june;
    let Some(base) = &config.base_url else {
        return Err(ProviderError::Unavailable("STT_SERVICE_URL is not set".into()));
    };
    Ok(Arc::new(June::new(base, config.key.clone())?))
}

pub(super) struct June {
    service: Arc<Service>,
}

struct Service {
    client: Client,
    transcribe: Url,
    transcriptions: Url,
    token: Option<Secret>,
    /// Whether it has `/v1/audio/transcriptions`, as far as is known.
    is_openai: AtomicBool,
}

impl June {
    pub(super) fn new(base: &str, token: Option<Secret>) -> Result<Self, ProviderError> {
        let url = |path: &str| {
            Url::parse(&format!("{base}{path}"))
                .map_err(|_| ProviderError::Unavailable("STT_SERVICE_URL is not valid".into()))
        };
        let service = Service {
            client: http::client()?,
            transcribe: url("/v1/transcribe")?,
            transcriptions: url("/v1/audio/transcriptions")?,
            token,
            is_openai: AtomicBool::new(false),
        };
        Ok(Self { service: Arc::new(service) })
    }
}

impl SpeechToText for June {
    fn name(&self) -> &'static str {
        "june"
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        languages::include(WHISPER, language)
    }

    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let service = self.service.clone();
        batch::open(audio, |utterance| async move { service.transcribe(&request, utterance).await })
    }
}

impl Service {
    async fn transcribe(&self, request: &SttRequest, utterance: Pcm) -> Result<Events, ProviderError> {
        let known = self.is_openai.load(Ordering::Relaxed);
        for is_openai in [known, !known] {
            let response = self.send(request, &utterance, is_openai).await?;
            if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
                continue;
            }
            self.is_openai.store(is_openai, Ordering::Relaxed);
            let response = http::accepted(response, self.token.as_ref()).await?;
            let body = http::read(response, MAX_ANSWER).await?;
            return Ok(batch::finally(batch::transcript(&body, &utterance)?));
        }
        Err(ProviderError::Refused("it has neither /v1/transcribe nor /v1/audio/transcriptions".into()))
    }

    async fn send(
        &self,
        request: &SttRequest,
        utterance: &Pcm,
        is_openai: bool,
    ) -> Result<Response, ProviderError> {
        let file = batch::wav_file(utterance);
        let (url, mut form) = if is_openai {
            let form = Form::new().part("file", file).text("model", "whisper-1");
            // The form that says which language was heard.
            (&self.transcriptions, form.text("response_format", "verbose_json"))
        } else {
            (&self.transcribe, Form::new().part("audio_file", file))
        };
        if let SpokenLanguage::Known(language) = &request.language
            && let Some(code) = languages::code(language, WHISPER)
        {
            form = form.text("language", code);
        }
        let mut post = self.client.post(url.clone()).multipart(form);
        if let Some(token) = &self.token {
            post = post.bearer_auth(token.expose());
        }
        post.send().await.map_err(|error| http::connection(&error))
    }
}

#[cfg(test)]
mod tests {
    use test_support::{SttScript, SttServer, SttVendor};

    use super::*;
    use crate::{
        language::Language,
        providers::stt::{
            Transcript,
            suite::{self, known},
        },
    };

    async fn hear(june: &June) -> Result<SttEvent, ProviderError> {
        let request = SttRequest { language: known("de-AT"), ..SttRequest::default() };
        suite::transcribe(june, request, &suite::speech()).await.pop().unwrap()
    }

    fn paths(server: &SttServer) -> Vec<String> {
        server.requests().into_iter().map(|request| request.path).collect()
    }

    #[tokio::test]
    async fn it_is_asked_once_which_form_it_has_and_again_when_that_is_gone() {
        let server = SttServer::start(SttVendor::JuneOpenAi, SttScript::saying("Hallo.")).await;
        let june = June::new(&server.url(), Some(suite::key())).unwrap();
        let heard = Transcript { language: Language::parse("de").ok(), ..Transcript::text("Hallo.") };

        for _ in 0..2 {
            assert_eq!(hear(&june).await, Ok(SttEvent::Final(heard.clone())));
        }
        server.become_vendor(SttVendor::June);
        assert_eq!(hear(&june).await, Ok(SttEvent::Final(heard)));

        let (old, new) = ("/v1/transcribe", "/v1/audio/transcriptions");
        assert_eq!(paths(&server), [old, new, new, new, old]);
        assert!(server.requests().iter().all(|request| request.field("language") == Some("de")));
    }

    #[tokio::test]
    async fn a_service_of_another_kind_is_refused() {
        let server = SttServer::start(SttVendor::Nobody, SttScript::saying("Hallo.")).await;
        let june = June::new(&server.url(), None).unwrap();

        let refused = hear(&june).await.unwrap_err();

        let reason = "refused: it has neither /v1/transcribe nor /v1/audio/transcriptions";
        assert_eq!(refused.to_string(), reason);
    }
}
