//! Scripted faults against the configured providers: who takes over, and when.
//!
//! The providers are the real ones, in chains of their own, so that a gateway that runs is not affected. For each of them
//! but the last, each fault happens to it and to those before it, so that the next one has to take over. What the
//! gateway sees is as if the provider had that fault; whether the provider's own protocol is read rightly is tested
//! elsewhere.

mod roles;
mod watched;

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use self::watched::{Calls, Watched};
use super::{Deadlines, ProviderError, chain::ProviderRole, scripted::fault::FaultKind};

pub(crate) use roles::{llm, speech, stt, tts};

/// Until an utterance has the level of speech, from which the deadline of its first result counts.
const UNTIL_SPEECH: Duration = Duration::from_millis(500);

/// How long a trial may take at most.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(180);

/// One call of a role, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trial {
    pub(crate) role: &'static str,
    /// None: the provider is tried alone, without a fault.
    pub(crate) fault: Option<&'static str>,
    /// The providers that have the fault, or the one that is tried alone.
    pub(crate) providers: Vec<&'static str>,
    pub(crate) taken_over_by: Option<&'static str>,
    /// From the fault, or from the end of an utterance if that is later, to the call of the next provider.
    pub(crate) takeover_ms: Option<u64>,
    /// The same to the first result of the next provider.
    pub(crate) first_result_ms: Option<u64>,
    /// How long the next provider may wait.
    pub(crate) deadline_ms: u64,
    pub(crate) survived: bool,
    /// What the role gave, or why it gave nothing.
    pub(crate) result: String,
}

/// What is tried of a role.
struct Role<'a, T: ?Sized> {
    role: ProviderRole,
    /// In order of preference.
    providers: &'a [Arc<T>],
    name: fn(&T) -> &'static str,
    /// Where a fault within a result comes.
    within: usize,
    /// How late a result is that is too late.
    too_late: Duration,
    deadlines: Deadlines,
}

impl<T: ?Sized> Role<'_, T> {
    /// Makes every trial. `call` makes one call of a chain of these providers and returns what it gave; `report` gets each
    /// trial when it is over.
    async fn try_all(
        &self,
        call: impl AsyncFn(Vec<Watched<T>>) -> Result<String, ProviderError>,
        report: &mut dyn FnMut(&Trial),
    ) -> Vec<Trial> {
        let mut trials = Vec::new();
        for at in 0..self.providers.len() {
            let alone = self.trial(None, &self.providers[at..=at], 1, &call).await;
            report(&alone);
            trials.push(alone);
        }
        for broken in 1..self.providers.len() {
            for fault in FaultKind::ALL {
                let trial = self.trial(Some(fault), self.providers, broken, &call).await;
                report(&trial);
                trials.push(trial);
            }
        }
        trials
    }

    /// A call of a chain of these providers, of which the first `broken` have the fault.
    async fn trial(
        &self,
        fault: Option<FaultKind>,
        providers: &[Arc<T>],
        broken: usize,
        call: &impl AsyncFn(Vec<Watched<T>>) -> Result<String, ProviderError>,
    ) -> Trial {
        let calls = Calls::default();
        let watched = providers.iter().enumerate().map(|(at, provider)| {
            let fault = fault
                .filter(|_| at < broken)
                .map(|kind| kind.after(if kind.is_within() { self.within } else { 0 }, self.too_late));
            Watched::new(provider, (self.name)(provider), fault, &calls)
        });
        let result = tokio::time::timeout(TRIAL_TIMEOUT, call(watched.collect())).await;
        let result = result.unwrap_or(Err(ProviderError::TimedOut));
        let takeover = calls.takeover(broken);
        let took = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
        Trial {
            role: self.role.name(),
            fault: fault.map(FaultKind::name),
            providers: providers[..broken].iter().map(|provider| (self.name)(provider)).collect(),
            taken_over_by: takeover.as_ref().map(|takeover| takeover.by),
            takeover_ms: took(takeover.as_ref().map(|takeover| takeover.after)),
            first_result_ms: took(takeover.and_then(|takeover| takeover.first_result_after)),
            deadline_ms: self.deadline(fault).as_millis() as u64,
            survived: result.is_ok(),
            result: result.unwrap_or_else(|error| error.to_string()),
        }
    }

    /// After which the next provider takes over; none where the fault is known at once.
    fn deadline(&self, fault: Option<FaultKind>) -> Duration {
        let Deadlines { stt_first_result, stt_final, llm_first_sentence, tts_first_sound, stall } =
            self.deadlines;
        let first = match self.role {
            ProviderRole::Stt => stt_final,
            ProviderRole::Llm => llm_first_sentence,
            ProviderRole::Tts => tts_first_sound,
        };
        match (fault, self.role) {
            (Some(FaultKind::Latency), _) => first,
            // Within the first sentence.
            (Some(FaultKind::Stall), ProviderRole::Llm) => first.max(stall),
            (Some(FaultKind::Stall), ProviderRole::Stt) => first,
            (Some(FaultKind::Silence), ProviderRole::Stt) => stt_first_result + UNTIL_SPEECH,
            (Some(FaultKind::Stall), ProviderRole::Tts) => stall,
            (
                None
                | Some(
                    FaultKind::Http429
                    | FaultKind::Http500
                    | FaultKind::Cut
                    | FaultKind::Garbage
                    | FaultKind::Silence,
                ),
                _,
            ) => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
