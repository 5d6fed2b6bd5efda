//! The providers of one session.

use std::sync::Arc;

use super::Services;
use crate::{
    protocol::{Mode, SessionOptions},
    providers::{
        inference::worker_pool::Hold, llm::LanguageModel, selected, stt::SpeechToText, tts::TextToSpeech,
    },
};

/// Those that the session asked for, or all.
pub(super) struct Providers {
    pub(super) stt: Option<Arc<dyn SpeechToText>>,
    pub(super) llm: Option<Arc<dyn LanguageModel>>,
    pub(super) tts: Option<Arc<dyn TextToSpeech>>,
    /// The LLM without those that do not translate; none where none does.
    pub(super) translator: Option<Arc<dyn LanguageModel>>,
    /// Keeps the embedded models in memory that the session needs.
    _models: Hold,
}

impl Providers {
    pub(super) fn of(services: &Services, options: &SessionOptions) -> Self {
        let SessionOptions { stt, llm, tts, .. } = options;
        let stt =
            services.stt.as_ref().map(|all| selected(all, stt.as_deref(), |all, names| all.select(names)));
        let llm =
            services.llm.as_ref().map(|all| selected(all, llm.as_deref(), |all, names| all.select(names)));
        let tts =
            services.tts.as_ref().map(|all| selected(all, tts.as_deref(), |all, names| all.select(names)));
        let mut holds = vec![stt.as_ref().map(|stt| stt.hold())];
        // In captions, nothing is answered.
        if options.mode != Some(Mode::Captions) {
            holds.extend([llm.as_ref().map(|llm| llm.hold()), tts.as_ref().map(|tts| tts.hold())]);
        }
        let translator = llm.as_ref().and_then(|llm| {
            let names: Vec<String> = llm.translators().into_iter().map(str::to_owned).collect();
            (!names.is_empty()).then(|| selected(llm, Some(&names), |all, names| all.select(names)))
        });
        Self { stt, llm, tts, translator, _models: holds.into_iter().flatten().collect() }
    }
}
