//! The response that is prepared at a likely end of a turn, and held until the end is certain.

use super::{Dialogue, Held, tell_started};
use crate::{
    providers::ProviderError,
    session::out::{Effect, Out},
    telemetry,
    tools::tool_loop::ToolLoop,
    turn::turn_manager::{self, Turn},
};

impl Dialogue {
    /// A held response is begun to be made.
    pub(super) fn prepare(&mut self, turn: Turn, out: &mut Out<'_>) {
        metrics::counter!(telemetry::PREEMPTIONS).increment(1);
        self.held = Some(Held { language: out.options().answer_language(None).cloned(), wants_tools: false });
        self.respond_to(turn, true, out);
    }

    /// The end is certain: what there is of the held response goes out.
    pub(super) fn release(&mut self, turn: Turn, out: &mut Out<'_>) {
        let Some(held) = self.held.take() else { return };
        tell_started(&turn, out);
        self.asked = Some(turn.text.clone());
        let (generation, waterfall) = (turn.generation, self.waterfall(&turn, out));
        let until = out.now + out.config().answer_time;
        self.respond(generation, out, |response, out| response.release(turn, waterfall, until, out));
        if held.wants_tools {
            self.step_ended(generation, out);
        }
    }

    /// Nobody learns of the held response.
    pub(super) fn drop_held(&mut self, out: &mut Out<'_>) {
        if self.held.take().is_none() {
            return;
        }
        metrics::counter!(telemetry::PREEMPTIONS_WASTED).increment(1);
        self.response = None;
        self.asked = None;
        // None of its calls was made.
        self.tools = ToolLoop::default();
        out.push(Effect::StopLlm);
        out.push(Effect::StopTts);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The text of the held response is complete. True if that is all for now.
    pub(super) fn held_ended(&mut self, result: &Result<(), ProviderError>, out: &mut Out<'_>) -> bool {
        match (result, &mut self.held) {
            (Ok(()), Some(held)) if self.tools.has_calls() => held.wants_tools = true,
            (Ok(()), _) => return false,
            (Err(error), _) => self.held_failed(error, out),
        }
        true
    }

    /// The turn is answered at its end as if nothing had been prepared, and the client is told of what fails then.
    pub(super) fn held_failed(&mut self, error: &ProviderError, out: &mut Out<'_>) {
        tracing::debug!(session.id = %out.info().id, %error, "no response could be prepared");
        self.pass_turn(turn_manager::Input::NotOver, out);
    }

    /// The options changed: a response that was prepared with the old ones is of no use.
    pub(in crate::session) fn reconfigured(&mut self, out: &mut Out<'_>) {
        self.turn(turn_manager::Input::NotOver, out);
    }

    /// Before a final is answered: a response that was prepared in another language than was heard is of no use.
    pub(super) fn check_held(&mut self, input: &turn_manager::Input, out: &mut Out<'_>) {
        if let turn_manager::Input::Transcribed { .. } = input
            && self
                .held
                .as_ref()
                .is_some_and(|held| held.language.as_ref() != out.options().answer_language(None))
        {
            self.pass_turn(turn_manager::Input::NotOver, out);
        }
    }
}
