//! The providers of one session.

use std::sync::Arc;

use super::Services;
use crate::{
    protocol::{Mode, SessionOptions},
    providers::{
        inference::worker_pool::Hold, llm::LanguageModel, selected, stt::SpeechToText, tts::TextToSpeech,
        turn::EndOfTurnModel,
    },
};

/// What the session needs the embedded models for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// Somebody may speak.
    pub(super) stt: bool,
    /// Something may be spoken.
    pub(super) tts: bool,
}

/// Those that the session asked for, or all.
pub(super) struct Providers {
    pub(super) stt: Option<Arc<dyn SpeechToText>>,
    pub(super) llm: Option<Arc<dyn LanguageModel>>,
    pub(super) tts: Option<Arc<dyn TextToSpeech>>,
    /// The LLM without those that do not translate; none where none does.
    pub(super) translator: Option<Arc<dyn LanguageModel>>,
    /// What judges pauses: in conversations alone.
    turn: Option<Arc<dyn EndOfTurnModel>>,
    /// In captions, nothing is.
    is_answered: bool,
    /// These keep embedded models in memory.
    held_stt: Option<Hold>,
    held_turn: Option<Hold>,
    held_tts: Option<Hold>,
    _held_llm: Option<Hold>,
}

impl Providers {
    pub(super) fn of(services: &Services, options: &SessionOptions, needs: Needs) -> Self {
        let SessionOptions { stt, llm, tts, .. } = options;
        let stt =
            services.stt.as_ref().map(|all| selected(all, stt.as_deref(), |all, names| all.select(names)));
        let llm =
            services.llm.as_ref().map(|all| selected(all, llm.as_deref(), |all, names| all.select(names)));
        let tts =
            services.tts.as_ref().map(|all| selected(all, tts.as_deref(), |all, names| all.select(names)));
        let is_answered = options.mode != Some(Mode::Captions);
        let turn = services.turn.clone().filter(|_| matches!(options.mode, None | Some(Mode::Conversation)));
        let translator = llm.as_ref().and_then(|llm| {
            let names: Vec<String> = llm.translators().into_iter().map(str::to_owned).collect();
            (!names.is_empty()).then(|| selected(llm, Some(&names), |all, names| all.select(names)))
        });
        let held_llm = llm.as_ref().filter(|_| is_answered).map(|llm| llm.hold());
        let mut providers = Self {
            stt,
            llm,
            tts,
            translator,
            is_answered,
            turn,
            held_stt: None,
            held_turn: None,
            held_tts: None,
            _held_llm: held_llm,
        };
        providers.need(needs);
        providers
    }

    /// Loads the models that are needed from now on, and lets go of the others.
    pub(super) fn need(&mut self, Needs { stt, tts }: Needs) {
        let tts = tts && self.is_answered;
        if stt != self.held_stt.is_some() {
            self.held_stt = self.stt.as_ref().filter(|_| stt).map(|stt| stt.hold());
            self.held_turn = self.turn.as_ref().filter(|_| stt).map(|turn| turn.hold());
        }
        if tts != self.held_tts.is_some() {
            self.held_tts = self.tts.as_ref().filter(|_| tts).map(|tts| tts.hold());
        }
    }
}
