//! Scripted LLM: answers with a text, in halves of words, so that faults come within words, too.

use std::{sync::Arc, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
#[cfg(test)]
use parking_lot::Mutex;

use super::{
    NAME, SPARE,
    fault::{At, Script, broken, late},
};
use crate::providers::{
    ProviderError,
    llm::{LanguageModel, LlmEvent, Prompt, fallback::CONTINUE_SYSTEM},
    registry::LoadContext,
};

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    let too_late = context.config.deadlines.llm_first_sentence * 2;
    let faults = context.config.scripted.llm.iter().map(|planned| planned.at(too_late));
    Ok(Arc::new(ScriptedLlm { script: Script::repeating(faults), ..configured(NAME, context) }))
}

pub(in crate::providers) fn load_spare(
    context: &LoadContext<'_>,
) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    Ok(Arc::new(configured(SPARE, context)))
}

fn configured(name: &'static str, context: &LoadContext<'_>) -> ScriptedLlm {
    let config = &context.config.scripted;
    ScriptedLlm { latency: config.latency, ..ScriptedLlm::new(name, &config.answer, []) }
}

pub(crate) struct ScriptedLlm {
    name: &'static str,
    pub(in crate::providers) script: Script,
    /// From the request to the first piece.
    latency: Duration,
    answer: String,
    /// How many words it repeats where it continues an answer.
    pub(in crate::providers) repeats: usize,
    /// In place of the answer.
    pub(in crate::providers) events: Vec<LlmEvent>,
    #[cfg(test)]
    pub(crate) asked: Mutex<Vec<Prompt>>,
}

impl ScriptedLlm {
    pub(crate) fn new(
        name: &'static str,
        answer: &str,
        faults: impl IntoIterator<Item = Option<At>>,
    ) -> Self {
        Self {
            name,
            script: Script::once(faults),
            latency: Duration::ZERO,
            answer: answer.to_owned(),
            repeats: 0,
            events: Vec::new(),
            #[cfg(test)]
            asked: Mutex::default(),
        }
    }

    /// The answer, or its rest.
    fn answer(&self, prompt: &Prompt) -> Vec<LlmEvent> {
        if !self.events.is_empty() {
            return self.events.clone();
        }
        let said = match prompt.messages.as_slice() {
            [.., said, _] if prompt.system.ends_with(CONTINUE_SYSTEM) => {
                said.text().split_whitespace().count()
            }
            _ => 0,
        };
        let words = self.answer.split_inclusive(' ').skip(said.saturating_sub(self.repeats));
        let halves =
            words.flat_map(|word| <[&str; 2]>::from(word.split_at(word.floor_char_boundary(word.len() / 2))));
        halves.map(|text| LlmEvent::TextDelta(text.to_owned())).collect()
    }
}

impl LanguageModel for ScriptedLlm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let answer = self.answer(&prompt);
        #[cfg(test)]
        self.asked.lock().push(prompt);
        broken(late(stream::iter(answer).map(Ok).boxed(), self.latency), self.script.next())
    }
}
