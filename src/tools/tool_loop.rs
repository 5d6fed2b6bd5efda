//! The tool calls of one response.
//!
//! ```text
//!              LLM ended with calls               each has a result
//!   generating ────────────────────▶ calling ───────────────────────▶ generating, the next step
//!       │ ended without calls            │ interrupted
//!       ▼                                ▼
//!      over                             over: open calls are cancelled
//! ```
//!
//! Calls of one step run in parallel. A call that is refused, fails or takes too long has a result, too: the model
//! learns why. Pure: [`dialogue`](crate::session) feeds it and carries out its effects.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    protocol::{ToolKind, edge_v1::to_client::ToolCancelReason},
    providers::llm::{ChatMessage, ToolCall, ToolResult, ToolSpec},
    tools::{OfferedTool, Target, ToolLimits, ToolOutput},
};

/// How many calls of one step are made; the others are refused.
const MAX_PARALLEL: usize = 8;

/// How many images are kept, the newest ones: as many as one prompt has.
const MAX_IMAGES: usize = 4;

/// In place of an earlier image.
const IMAGE_NOTE: &str = "\n[With an image that is no longer shown.]";

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Make this call.
    Start { call_id: String, call: ToolCall, target: Target },
    /// Its result is not needed any more.
    Cancel { call_id: String, kind: ToolKind, reason: ToolCancelReason },
    /// A call has its result.
    Done(FinishedCall),
    /// The tools take long: say this meanwhile.
    Filler(String),
    /// Generate the next step.
    Generate,
    /// The model does not stop calling: end the response.
    GiveUp,
}

/// A call and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FinishedCall {
    pub(crate) name: String,
    /// None where no such tool was offered.
    pub(crate) kind: Option<ToolKind>,
    pub(crate) arguments: Value,
    pub(crate) outcome: Outcome,
    /// The result, or why there is none.
    pub(crate) text: String,
    /// Whether the result has an image.
    pub(crate) image: bool,
    pub(crate) took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// The tool answered with an error, or could not be reached.
    Failed,
    /// The call was not made.
    Refused,
    TimedOut,
    Cancelled,
}

impl Outcome {
    /// As the history and the metrics have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// No call of this id waits for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotOpen;

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct ToolLoop {
    generation: u32,
    limits: ToolLimits,
    offered: Vec<OfferedTool>,
    phase: Phase,
    /// How many steps have begun.
    steps: u32,
    /// How many calls were made.
    calls: u32,
    /// When something is said meanwhile. None before the first call, and after it was said.
    filler_at: Option<Instant>,
    is_filled: bool,
    /// The steps that are complete: calls and results.
    messages: Vec<ChatMessage>,
}

#[derive(Debug, Default)]
enum Phase {
    /// The model is at work, and wants these calls so far.
    Generating { wanted: Vec<ToolCall> },
    /// Tools are at work.
    Calling { text: String, calls: Vec<Call> },
    #[default]
    Over,
}

impl Phase {
    fn is_calling(&self) -> bool {
        matches!(self, Self::Calling { .. })
    }
}

#[derive(Debug)]
struct Call {
    id: String,
    call: ToolCall,
    target: Option<Target>,
    began: Instant,
    result: Option<ToolOutput>,
}

impl Call {
    fn is_open(&self, id: &str, by: ToolKind) -> bool {
        self.id == id && self.result.is_none() && self.target.as_ref().map(Target::kind) == Some(by)
    }

    fn done(&mut self, outcome: Outcome, output: ToolOutput, now: Instant) -> Effect {
        let (text, image) = (output.text.clone(), output.image.is_some());
        self.result = Some(output);
        Effect::Done(FinishedCall {
            name: self.call.name.clone(),
            kind: self.target.as_ref().map(Target::kind),
            arguments: self.call.arguments.clone(),
            outcome,
            text,
            image,
            took: now.saturating_duration_since(self.began),
        })
    }

    fn failed(&mut self, outcome: Outcome, why: &str, now: Instant) -> Effect {
        self.done(outcome, ToolOutput { text: format!("Error: {why}"), image: None }, now)
    }

    fn cancel(&mut self, reason: ToolCancelReason, outcome: Outcome, why: &str, now: Instant) -> Vec<Effect> {
        let kind = self.target.as_ref().map_or(ToolKind::Client, Target::kind);
        let cancel = Effect::Cancel { call_id: self.id.clone(), kind, reason };
        vec![cancel, self.failed(outcome, why, now)]
    }
}

impl ToolLoop {
    /// The tool calls of the response of this generation, which is being generated.
    pub(crate) fn new(generation: u32, offered: Vec<OfferedTool>, limits: ToolLimits) -> Self {
        let phase = Phase::Generating { wanted: Vec::new() };
        Self {
            generation,
            limits,
            offered,
            phase,
            steps: 0,
            calls: 0,
            filler_at: None,
            is_filled: false,
            messages: Vec::new(),
        }
    }

    /// What the model may call.
    pub(crate) fn specs(&self) -> Vec<ToolSpec> {
        self.offered.iter().map(|tool| tool.spec.clone()).collect()
    }

    /// The calls and results so far, for the prompt of the next step.
    pub(crate) fn messages(&self) -> &[ChatMessage] {
        &self.messages
    }

    pub(crate) fn into_messages(self) -> Vec<ChatMessage> {
        self.messages
    }

    /// The model wants a call.
    pub(crate) fn called(&mut self, mut call: ToolCall) {
        let Phase::Generating { wanted } = &mut self.phase else { return };
        // A provider that took over may use the ids of the one before it again.
        if wanted.iter().any(|other| other.id == call.id) {
            call.id = format!("{}_{}", call.id, wanted.len());
        }
        wanted.push(call);
    }

    /// Whether the model wants calls.
    pub(crate) fn has_calls(&self) -> bool {
        matches!(&self.phase, Phase::Generating { wanted } if !wanted.is_empty())
    }

    /// The model has ended a step that has calls, and said this in it.
    pub(crate) fn step_ended(&mut self, text: String, now: Instant) -> Vec<Effect> {
        let Phase::Generating { wanted } = &mut self.phase else { return Vec::new() };
        let wanted = std::mem::take(wanted);
        let mut effects = Vec::new();
        let mut calls: Vec<Call> = Vec::with_capacity(wanted.len());
        if self.steps > self.limits.max_steps {
            self.phase = Phase::Over;
            return vec![Effect::GiveUp];
        }
        for call in wanted {
            self.calls += 1;
            let id = format!("call_{}_{}", self.generation, self.calls);
            let target = self.offered.iter().find(|tool| tool.spec.name == call.name);
            let target = target.map(|tool| tool.target.clone());
            let mut call = Call { id, call, target, began: now, result: None };
            effects.push(match self.target(&call, calls.len()) {
                Ok(target) => Effect::Start { call_id: call.id.clone(), call: call.call.clone(), target },
                Err(refusal) => call.failed(Outcome::Refused, &refusal, now),
            });
            calls.push(call);
        }
        self.steps += 1;
        self.phase = Phase::Calling { text, calls };
        let filler = self.limits.filler.as_ref().filter(|_| !self.is_filled);
        self.filler_at = filler.map(|filler| now + filler.after);
        effects.extend(self.next_step());
        effects
    }

    /// Who answers the call, or why it is not made.
    fn target(&self, call: &Call, before: usize) -> Result<Target, String> {
        if self.steps == self.limits.max_steps {
            return Err("no further tool call is possible; answer with what is known".into());
        }
        let Some(target) = &call.target else {
            let names: Vec<&str> = self.offered.iter().map(|tool| tool.spec.name.as_str()).collect();
            return Err(format!("there is no tool of this name; there are {}", names.join(", ")));
        };
        match before < MAX_PARALLEL {
            true => Ok(target.clone()),
            false => Err(format!("not called: at most {MAX_PARALLEL} calls at once")),
        }
    }

    /// Whether a call that these answer waits for its result.
    pub(crate) fn is_open(&self, call_id: &str, by: ToolKind) -> bool {
        matches!(&self.phase, Phase::Calling { calls, .. } if calls.iter().any(|call| call.is_open(call_id, by)))
    }

    /// A call has its result.
    pub(crate) fn answered(
        &mut self,
        call_id: &str,
        by: ToolKind,
        result: Result<ToolOutput, String>,
        now: Instant,
    ) -> Result<Vec<Effect>, NotOpen> {
        let Phase::Calling { calls, .. } = &mut self.phase else { return Err(NotOpen) };
        let call = calls.iter_mut().find(|call| call.is_open(call_id, by)).ok_or(NotOpen)?;
        let done = match result {
            Ok(output) => call.done(Outcome::Ok, output, now),
            Err(why) => call.failed(Outcome::Failed, &why, now),
        };
        let mut effects = vec![done];
        effects.extend(self.next_step());
        Ok(effects)
    }

    /// The response has ended, or is cut.
    pub(crate) fn cancel(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Phase::Calling { text, mut calls } = std::mem::take(&mut self.phase) {
            for call in calls.iter_mut().filter(|call| call.result.is_none()) {
                let reason = ToolCancelReason::Interrupted;
                effects.extend(call.cancel(
                    reason,
                    Outcome::Cancelled,
                    "cancelled: the user interrupted",
                    now,
                ));
            }
            self.messages.extend(messages(text, calls));
        }
        effects
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let Phase::Calling { calls, .. } = &self.phase else { return None };
        let open = calls.iter().filter(|call| call.result.is_none());
        open.map(|call| call.began + self.limits.timeout).chain(self.filler_at).min()
    }

    /// What time brings.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Effect> {
        let timeout = self.limits.timeout;
        let Phase::Calling { calls, .. } = &mut self.phase else { return Vec::new() };
        let mut effects = Vec::new();
        for call in calls.iter_mut().filter(|call| call.result.is_none() && now >= call.began + timeout) {
            let why = format!("no result within {} ms", timeout.as_millis());
            effects.extend(call.cancel(ToolCancelReason::TimedOut, Outcome::TimedOut, &why, now));
        }
        effects.extend(self.next_step());
        if self.phase.is_calling() && self.filler_at.is_some_and(|at| now >= at) {
            (self.filler_at, self.is_filled) = (None, true);
            effects.extend(self.limits.filler.as_ref().map(|filler| Effect::Filler(filler.text.clone())));
        }
        effects
    }

    /// Goes on where each call has its result.
    fn next_step(&mut self) -> Option<Effect> {
        let Phase::Calling { text, calls } = &mut self.phase else { return None };
        if calls.iter().any(|call| call.result.is_none()) {
            return None;
        }
        let complete = messages(std::mem::take(text), std::mem::take(calls));
        self.messages.extend(complete);
        self.drop_old_images();
        self.phase = Phase::Generating { wanted: Vec::new() };
        Some(Effect::Generate)
    }

    fn drop_old_images(&mut self) {
        let results = self.messages.iter_mut().rev().filter_map(|message| match message {
            ChatMessage::ToolResult(result) if result.image.is_some() => Some(result),
            ChatMessage::ToolResult(_) | ChatMessage::User { .. } | ChatMessage::Assistant { .. } => None,
        });
        for result in results.skip(MAX_IMAGES) {
            result.image = None;
            result.text.push_str(IMAGE_NOTE);
        }
    }
}

/// A step as the model reads it.
fn messages(text: String, calls: Vec<Call>) -> Vec<ChatMessage> {
    let tool_calls = calls.iter().map(|call| call.call.clone()).collect();
    let mut messages = vec![ChatMessage::Assistant { text, tool_calls }];
    messages.extend(calls.into_iter().map(|call| {
        let ToolOutput { text, image } = call.result.unwrap_or_default();
        ChatMessage::ToolResult(ToolResult { call_id: call.call.id, text, image })
    }));
    messages
}

#[cfg(test)]
mod tests;
