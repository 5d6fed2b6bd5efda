//! What the client is told of the states of STT, LLM and TTS.

use std::time::Instant;

use crate::{
    protocol::{Profile, ToClient, edge_v1::to_client::PartState},
    providers::chain::{ChainStatus, Condition, ProviderRole},
    session::out::Out,
};

/// The machine.
#[derive(Debug, Default)]
pub(super) struct ProviderStates {
    stt: Option<ChainStatus>,
    llm: Option<ChainStatus>,
    tts: Option<ChainStatus>,
}

impl ProviderStates {
    /// The state of a role has changed.
    pub(super) fn changed(&mut self, role: ProviderRole, status: ChainStatus, out: &mut Out<'_>) {
        tell(role, &status, out);
        *self.of(role) = Some(status);
    }

    /// A client that attached learns what does not work.
    pub(super) fn attached(&mut self, out: &mut Out<'_>) {
        for role in [ProviderRole::Stt, ProviderRole::Llm, ProviderRole::Tts] {
            if let Some(status) = self.of(role)
                && status.condition != Condition::Ready
            {
                tell(role, status, out);
            }
        }
    }

    /// Whether no STT works.
    pub(super) fn stt_has_failed(&self) -> bool {
        self.stt.as_ref().is_some_and(|status| status.condition == Condition::Failed)
    }

    fn of(&mut self, role: ProviderRole) -> &mut Option<ChainStatus> {
        match role {
            ProviderRole::Stt => &mut self.stt,
            ProviderRole::Llm => &mut self.llm,
            ProviderRole::Tts => &mut self.tts,
        }
    }
}

/// Clients of the `mentra` profile are told of each utterance and answer that fails, and not of states.
fn tell(role: ProviderRole, status: &ChainStatus, out: &mut Out<'_>) {
    if out.socket().is_none() || out.profile() != Profile::EdgeV1 {
        return;
    }
    let message = message(role, status, out.now);
    out.tell(message);
}

fn message(role: ProviderRole, status: &ChainStatus, now: Instant) -> ToClient {
    let state = match status.condition {
        Condition::Ready => PartState::Ready,
        Condition::Degraded => PartState::Degraded,
        Condition::Failed => PartState::Failed,
    };
    let (provider, message) = (status.provider.to_owned(), status.message.clone());
    let taken_over_by = status.taken_over_by.map(str::to_owned);
    let retry_in_ms = status.retry_at.map(|at| at.saturating_duration_since(now).as_millis() as u64);
    match role {
        ProviderRole::Stt => ToClient::SttState { state, provider, message, taken_over_by, retry_in_ms },
        ProviderRole::Llm => ToClient::LlmState { state, provider, message, taken_over_by, retry_in_ms },
        ProviderRole::Tts => ToClient::TtsState { state, provider, message, taken_over_by, retry_in_ms },
    }
}
