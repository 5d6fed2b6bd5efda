//! Providers whose outcomes are recorded, for `/health`.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use tokio::sync::mpsc;

use crate::{
    audio::Pcm,
    language::Language,
    outcomes::Outcome,
    providers::{
        ProviderError,
        inference::worker_pool::Hold,
        llm::{HedgePermit, LanguageModel, LlmEvent, Prompt},
        stt::{SpeechToText, SpokenLanguage, SttEvent, SttRequest},
        tts::{SpeechRequest, TextToSpeech},
        turn::EndOfTurnModel,
    },
};

/// A provider, and where its outcomes are recorded.
pub(crate) struct Recorded<T: ?Sized> {
    provider: Arc<T>,
    outcome: Outcome,
}

impl<T: ?Sized> Recorded<T> {
    pub(crate) fn new(provider: &Arc<T>, outcome: &Outcome) -> Arc<Self> {
        Arc::new(Self { provider: provider.clone(), outcome: outcome.clone() })
    }

    /// The stream's first item is a success, an error a failure. A provider that is too busy works.
    fn record<I: Send + 'static>(
        &self,
        stream: BoxStream<'static, Result<I, ProviderError>>,
    ) -> BoxStream<'static, Result<I, ProviderError>> {
        let (outcome, mut is_first) = (self.outcome.clone(), true);
        let recorded = stream.inspect(move |item| match item {
            Ok(_) if std::mem::take(&mut is_first) => outcome.succeeded(),
            Ok(_) | Err(ProviderError::Busy) => {}
            Err(error) => outcome.failed(error.to_string()),
        });
        recorded.boxed()
    }
}

impl SpeechToText for Recorded<dyn SpeechToText> {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn select(&self, names: &[String]) -> Option<Arc<dyn SpeechToText>> {
        Some(Recorded::new(&self.provider.select(names)?, &self.outcome))
    }

    fn hold(&self) -> Hold {
        self.provider.hold()
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        self.provider.transcribes(language)
    }

    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        self.record(self.provider.open(request, audio))
    }
}

impl LanguageModel for Recorded<dyn LanguageModel> {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn sees_images(&self) -> bool {
        self.provider.sees_images()
    }

    fn translators(&self) -> Vec<&'static str> {
        self.provider.translators()
    }

    fn select(&self, names: &[String]) -> Option<Arc<dyn LanguageModel>> {
        Some(Recorded::new(&self.provider.select(names)?, &self.outcome))
    }

    fn hold(&self) -> Hold {
        self.provider.hold()
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.record(self.provider.respond(prompt))
    }

    fn respond_hedged(
        &self,
        prompt: Prompt,
        permit: HedgePermit,
    ) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.record(self.provider.respond_hedged(prompt, permit))
    }
}

impl TextToSpeech for Recorded<dyn TextToSpeech> {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn select(&self, names: &[String]) -> Option<Arc<dyn TextToSpeech>> {
        Some(Recorded::new(&self.provider.select(names)?, &self.outcome))
    }

    fn hold(&self) -> Hold {
        self.provider.hold()
    }

    fn sample_rate_hz(&self) -> u32 {
        self.provider.sample_rate_hz()
    }

    fn speaks(&self, language: &Language) -> bool {
        self.provider.speaks(language)
    }

    fn voices(&self) -> &[&'static str] {
        self.provider.voices()
    }

    fn synthesize(&self, request: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        self.record(self.provider.synthesize(request))
    }
}

impl EndOfTurnModel for Recorded<dyn EndOfTurnModel> {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn hold(&self) -> Hold {
        self.provider.hold()
    }

    fn judge(&self, pcm: Pcm) -> BoxFuture<'static, Result<f32, ProviderError>> {
        let (judged, outcome) = (self.provider.judge(pcm), self.outcome.clone());
        let recorded = judged.inspect(move |judged| match judged {
            Ok(_) => outcome.succeeded(),
            Err(ProviderError::Busy) => {}
            Err(error) => outcome.failed(error.to_string()),
        });
        recorded.boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use parking_lot::Mutex;

    use super::*;

    /// Gives what it was told to, once.
    struct Scripted(Mutex<Vec<Result<LlmEvent, ProviderError>>>);

    impl LanguageModel for Scripted {
        fn name(&self) -> &'static str {
            "scripted"
        }

        fn respond(&self, _: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
            stream::iter(std::mem::take(&mut *self.0.lock())).boxed()
        }
    }

    #[tokio::test]
    async fn the_last_real_outcome_of_a_provider_is_known() {
        let outcome = Outcome::new("llm");
        let respond = async |events: Vec<Result<LlmEvent, ProviderError>>| {
            let provider: Arc<dyn LanguageModel> = Arc::new(Scripted(Mutex::new(events)));
            Recorded::new(&provider, &outcome).respond(Prompt::default()).collect::<Vec<_>>().await;
            outcome.last().map(|last| last.failure)
        };
        let delta = || Ok(LlmEvent::TextDelta("Hello".into()));
        let lost = || ProviderError::Connection("refused".into());

        assert_eq!(respond(vec![Err(ProviderError::Busy)]).await, None);
        assert_eq!(respond(vec![delta(), Err(lost())]).await, Some(Some(lost().to_string())));
        assert_eq!(respond(vec![Err(ProviderError::Busy)]).await, Some(Some(lost().to_string())));
        assert_eq!(respond(vec![delta(), delta()]).await, Some(None));
    }
}
