//! LLMs in order of preference, as one.
//!
//! A provider that fails, does not complete its first sentence in time, stalls, or gives nothing is replaced by the next,
//! also within the answer. The next one gets the conversation and the beginning of the answer, and continues; words that
//! it repeats are dropped ([`Continuation`]). While there is a next one, text is passed on by whole words, so that no
//! answer is continued within a word. A model that does not continue answers is asked anew.
//!
//! Where the chain hedges and a permit is given, a provider without any text or tool call after its own p95 gets a backup
//! ([`Hedge`]): whoever gives something first is the provider of the answer. Nothing of the other was passed on, so that no
//! tool is called twice.
//!
//! Price: a continuation is in the words of another model, and a word that is legitimately said twice in a row at the seam
//! is said once.

mod continuation;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use self::continuation::Continuation;
use super::{ChatMessage, HedgePermit, LanguageModel, LlmEvent, Prompt, ToolCall};
use crate::{
    clock,
    providers::{
        Deadlines, ProviderError,
        chain::{Attempt, Call, Chain, ChainState, ProviderRole},
        hedge::{Hedge, Next},
        inference::worker_pool::Hold,
    },
    response::sentence_splitter::SentenceSplitter,
};

pub(in crate::providers) const CONTINUE_SYSTEM: &str = "Your last answer was cut off by a technical fault. Continue it exactly where it \
stopped: repeat nothing of it, and say nothing about the fault.";
const CONTINUE_TURN: &str = "Go on.";

/// The providers.
pub(crate) struct LlmChain {
    chain: Chain<dyn LanguageModel>,
    deadlines: Deadlines,
}

impl LlmChain {
    /// In order of preference; at least one.
    pub(crate) fn new(providers: Vec<Arc<dyn LanguageModel>>, deadlines: Deadlines) -> Self {
        Self { chain: Chain::new(ProviderRole::Llm, providers, |llm| llm.name()), deadlines }
    }

    /// Whether answers for which there is a [`HedgePermit`] are hedged.
    pub(crate) fn hedging(self, hedges: bool) -> Self {
        Self { chain: self.chain.hedging(hedges), ..self }
    }

    pub(crate) fn state(&self) -> Arc<ChainState> {
        self.chain.state.clone()
    }

    fn answer(
        &self,
        prompt: Prompt,
        permit: Option<HedgePermit>,
    ) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let answer = Answer {
            call: self.chain.call(|_| true),
            chain: self.chain.clone(),
            deadlines: self.deadlines,
            prompt,
            permit,
            hedge: Hedge::default(),
            running: None,
            said: String::new(),
            given: Vec::new(),
            ready: VecDeque::new(),
            may_be_complete: false,
            is_over: false,
        };
        stream::unfold(answer, |mut answer| async {
            let event = answer.next().await?;
            Some((event, answer))
        })
        .boxed()
    }
}

impl LanguageModel for LlmChain {
    /// Of the preferred one.
    fn name(&self) -> &'static str {
        self.chain.name()
    }

    /// Whether one of them does; the others are told that there is an image.
    fn sees_images(&self) -> bool {
        self.chain.chosen().any(LanguageModel::sees_images)
    }

    fn translators(&self) -> Vec<&'static str> {
        self.chain.chosen().flat_map(LanguageModel::translators).collect()
    }

    fn select(&self, names: &[String]) -> Option<Arc<dyn LanguageModel>> {
        Some(Arc::new(Self { chain: self.chain.select(names)?, deadlines: self.deadlines }))
    }

    fn hold(&self) -> Hold {
        self.chain.chosen().map(LanguageModel::hold).collect()
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.answer(prompt, None)
    }

    fn respond_hedged(
        &self,
        prompt: Prompt,
        permit: HedgePermit,
    ) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.answer(prompt, Some(permit))
    }
}

/// An answer on its way.
struct Answer {
    chain: Chain<dyn LanguageModel>,
    deadlines: Deadlines,
    prompt: Prompt,
    call: Call,
    /// None if the answer is not hedged, or was.
    permit: Option<HedgePermit>,
    hedge: Hedge<LlmEvent>,
    running: Option<Running>,
    /// The text that was passed on.
    said: String,
    /// The tool calls that were passed on.
    given: Vec<ToolCall>,
    /// Events to be passed on.
    ready: VecDeque<LlmEvent>,
    /// A provider had nothing to add to what was said.
    may_be_complete: bool,
    is_over: bool,
}

/// The provider that is at work.
struct Running {
    attempt: Attempt,
    events: BoxStream<'static, Result<LlmEvent, ProviderError>>,
    text: Continuation,
    sentences: SentenceSplitter,
    /// When the first sentence has to be complete; none once it is.
    sentence_by: Option<Instant>,
    /// The tool calls of earlier providers that this one has not repeated.
    earlier_calls: Vec<ToolCall>,
    /// It produced something, be it a repetition.
    gave: bool,
}

impl Answer {
    async fn next(&mut self) -> Option<Result<LlmEvent, ProviderError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.is_over {
                return None;
            }
            if self.running.is_none() && !self.begin() {
                self.is_over = true;
                return (!self.may_be_complete).then(|| Err(self.call.exhausted()));
            }
            let Some(running) = &mut self.running else { continue };
            let stalled_at = clock::now() + self.call.patience(self.deadlines.stall);
            let deadline = running.sentence_by.unwrap_or(stalled_at);
            match self.hedge.next(&mut running.events, deadline).await {
                Next::Current(Ok(Some(event))) => self.take(event),
                Next::Current(Ok(None)) => self.ended(),
                Next::Current(Err(error)) => self.failed(error),
                Next::Due => self.ask_another(),
                Next::Backup(Ok(Some(event))) if is_result(&event) => self.backup_won(event),
                Next::Backup(Ok(Some(_))) => {}
                Next::Backup(Ok(None)) => self.backup_failed(ProviderError::Empty),
                Next::Backup(Err(error)) => self.backup_failed(error),
            }
        }
    }

    /// The next provider goes on: the backup if there is one.
    fn begin(&mut self) -> bool {
        let backup = self.hedge.promote(&mut self.call);
        let Some((attempt, events)) = backup.or_else(|| {
            let attempt = self.call.next()?;
            let events = self.ask(&attempt);
            Some((attempt, events))
        }) else {
            return false;
        };
        self.hedge.begin(&self.call, &attempt, self.deadlines.llm_first_sentence);
        self.running = Some(Running {
            events,
            text: Continuation::after(&self.said, self.call.can_go_on()),
            sentences: SentenceSplitter::default(),
            sentence_by: Some(self.sentence_by(&attempt)),
            attempt,
            earlier_calls: self.given.clone(),
            gave: false,
        });
        true
    }

    fn ask(&self, attempt: &Attempt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let provider = &self.chain.providers[attempt.provider];
        let begins = self.said.is_empty() || !provider.continues_answers();
        provider.respond(if begins { self.prompt.clone() } else { continued(&self.prompt, &self.said) })
    }

    fn sentence_by(&self, attempt: &Attempt) -> Instant {
        attempt.began + self.call.patience(self.deadlines.llm_first_sentence)
    }

    fn ask_another(&mut self) {
        let Some(attempt) = self.call.hedge() else { return };
        if self.permit.take().is_some_and(|permit| permit()) {
            let events = self.ask(&attempt);
            self.hedge.ask(attempt, events);
        } else {
            self.call.put_back(attempt);
        }
    }

    fn backup_won(&mut self, event: LlmEvent) {
        if let Some(loser) = self.running.take() {
            self.hedge.won(&mut self.call, loser.attempt);
        }
        if self.begin() {
            self.take(event);
        }
    }

    /// The provider at work may now be the last one, which has longer.
    fn backup_failed(&mut self, error: ProviderError) {
        self.hedge.backup_failed(&mut self.call, error);
        let by = self.running.as_ref().map(|running| self.sentence_by(&running.attempt));
        if let Some(running) = &mut self.running {
            running.sentence_by = by;
        }
    }

    fn take(&mut self, event: LlmEvent) {
        let Some(running) = &mut self.running else { return };
        if is_result(&event) {
            running.gave = true;
            self.hedge.settle(&mut self.call, &running.attempt);
        }
        match event {
            LlmEvent::TextDelta(delta) => {
                let text = running.text.push(&delta);
                self.say(text);
            }
            LlmEvent::ToolCall(call) => {
                let text = running.text.finish();
                self.say(text);
                self.call_tool(call);
            }
            LlmEvent::Usage(_) => self.ready.push_back(event),
            LlmEvent::Truncated => {
                self.finish();
                self.ready.push_back(event);
            }
        }
    }

    fn say(&mut self, text: String) {
        let Some(running) = self.running.as_mut().filter(|_| !text.is_empty()) else { return };
        if !running.sentences.push(&text).is_empty() {
            running.sentence_by = None;
            running.attempt.works();
        }
        self.said.push_str(&text);
        self.ready.push_back(LlmEvent::TextDelta(text));
    }

    fn call_tool(&mut self, call: ToolCall) {
        let Some(running) = &mut self.running else { return };
        running.sentence_by = None;
        running.attempt.works();
        let is_same = |other: &ToolCall| (&other.name, &other.arguments) == (&call.name, &call.arguments);
        if let Some(at) = running.earlier_calls.iter().position(is_same) {
            running.earlier_calls.swap_remove(at);
            return;
        }
        self.given.push(call.clone());
        self.ready.push_back(LlmEvent::ToolCall(call));
    }

    /// The provider's stream ended without an error. An answer that broke off after a whole sentence may have been
    /// complete: it is, if no provider has anything to add.
    fn ended(&mut self) {
        if self.running.as_ref().is_some_and(|running| running.gave) {
            self.finish();
        } else if ends_a_sentence(&self.said) {
            self.may_be_complete = true;
            self.running = None;
        } else {
            self.failed(ProviderError::Empty);
        }
    }

    fn finish(&mut self) {
        let Some(running) = &mut self.running else { return };
        let text = running.text.finish();
        running.attempt.works();
        self.say(text);
        self.running = None;
        self.is_over = true;
    }

    /// What was held back of the provider's text is dropped: the next one says it.
    fn failed(&mut self, error: ProviderError) {
        if let Some(running) = self.running.take() {
            self.call.fail(running.attempt, error);
        }
    }
}

/// Whether the event is something of an answer.
fn is_result(event: &LlmEvent) -> bool {
    match event {
        LlmEvent::TextDelta(delta) => !delta.trim().is_empty(),
        LlmEvent::ToolCall(_) => true,
        LlmEvent::Usage(_) | LlmEvent::Truncated => false,
    }
}

/// The prompt for the rest of an answer.
fn continued(prompt: &Prompt, said: &str) -> Prompt {
    let mut prompt = prompt.clone();
    prompt.system = format!("{}\n\n{CONTINUE_SYSTEM}", prompt.system);
    prompt.messages.push(ChatMessage::assistant(said.trim_end()));
    prompt.messages.push(ChatMessage::user(CONTINUE_TURN));
    prompt
}

fn ends_a_sentence(text: &str) -> bool {
    let text = text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '”' | '’' | ')'));
    text.ends_with(['.', '!', '?', '…', '。', '！', '？'])
}

#[cfg(test)]
mod hedging;
#[cfg(test)]
mod tests;
