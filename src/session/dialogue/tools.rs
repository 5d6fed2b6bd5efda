//! The tool calls of the response that is being given: carries out what [`ToolLoop`](crate::tools::tool_loop) decides.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::Dialogue;
use crate::{
    error::Code,
    ids::TurnId,
    protocol::{Profile, ToClient, ToolKind, edge_v1::from_client::ToolResult},
    providers::llm::{ChatMessage, Image, ToolCall},
    session::{
        messages::ClosedCall,
        out::{Effect, Out},
        response::Response,
    },
    store::history::HistoryItem,
    telemetry,
    tools::{
        self, Invocation, Target, ToolOutput,
        tool_loop::{self, FinishedCall},
    },
};

/// How much of a result the following answers know, in bytes.
const MAX_KEPT_BYTES: usize = 1_000;

/// How many calls are known to be over. Of older ones nobody knows that they were made.
const MAX_CLIENT_CALLS: usize = 64;

impl Dialogue {
    /// Whether the text of this generation may go on.
    pub(super) fn is_generating(&self, generation: u32) -> bool {
        let current = self.response.as_ref().filter(|response| response.generation() == generation);
        current.is_some_and(|response| response.is_generating())
    }

    /// The model has ended a step, and waits for the results of its calls.
    pub(super) fn step_ended(&mut self, generation: u32, out: &mut Out<'_>) {
        let Some(response) = &mut self.response else { return };
        let (turn, text) = (response.turn_id(), response.take_step());
        self.respond(generation, out, Response::text_paused);
        // The text may have become too long.
        if self.is_generating(generation) {
            let effects = self.tools.step_ended(text, out.now);
            self.perform(turn, effects, out);
        }
    }

    /// The client answers a tool.
    pub(in crate::session) fn tool_result(
        &mut self,
        result: ToolResult,
        id: Option<String>,
        out: &mut Out<'_>,
    ) {
        let call_id = result.call_id.clone();
        let output = output(result);
        let problem = match &output {
            Err(Answer::Invalid(problem)) => Some(problem.clone()),
            Ok(_) | Err(Answer::Failed(_)) => None,
        };
        let output = output.map_err(|answer| match answer {
            Answer::Failed(why) => why,
            Answer::Invalid(problem) => format!("the client sent no valid result: {problem}"),
        });
        if !self.tool_answered(&call_id, ToolKind::Client, output, out) {
            let message = "callId: no call of this id waits for a result";
            return out.error(Code::SessionError, message, id);
        }
        if let Some(problem) = problem {
            out.error(Code::InvalidRequest, problem, id);
        }
    }

    /// Whether a call that the client was asked for waits for its result.
    pub(in crate::session) fn client_call(&self, call_id: &str) -> Result<(), ClosedCall> {
        if self.tools.is_open(call_id, ToolKind::Client) {
            return Ok(());
        }
        let was_asked = self.client_calls.iter().any(|asked| asked == call_id);
        Err(if was_asked { ClosedCall::Over } else { ClosedCall::Unknown })
    }

    /// A tool has its result. Returns false if nobody waits for it.
    pub(in crate::session) fn tool_answered(
        &mut self,
        call_id: &str,
        by: ToolKind,
        result: Result<ToolOutput, String>,
        out: &mut Out<'_>,
    ) -> bool {
        let Some(turn) = self.response.as_ref().map(|response| response.turn_id()) else { return false };
        match self.tools.answered(call_id, by, result, out.now) {
            Ok(effects) => self.perform(turn, effects, out),
            Err(tool_loop::NotOpen) => return false,
        }
        true
    }

    /// The response goes on without tools, or ends.
    pub(super) fn cancel_tools(&mut self, turn: TurnId, out: &mut Out<'_>) {
        let effects = self.tools.cancel(out.now);
        self.perform(turn, effects, out);
    }

    pub(super) fn tick_tools(&mut self, out: &mut Out<'_>) {
        let Some(turn) = self.response.as_ref().map(|response| response.turn_id()) else { return };
        let effects = self.tools.tick(out.now);
        self.perform(turn, effects, out);
    }

    /// Puts the calls of the response that is over into the conversation. What was said between them is part of what
    /// was heard.
    pub(super) fn keep_tools(&mut self) {
        for message in std::mem::take(&mut self.tools).into_messages() {
            self.messages.push_back(match message {
                ChatMessage::Assistant { tool_calls, .. } => {
                    ChatMessage::Assistant { text: String::new(), tool_calls }
                }
                ChatMessage::ToolResult(mut result) => {
                    result.text.truncate(result.text.floor_char_boundary(MAX_KEPT_BYTES));
                    ChatMessage::ToolResult(result)
                }
                user @ ChatMessage::User { .. } => user,
            });
        }
    }

    fn perform(&mut self, turn: TurnId, effects: Vec<tool_loop::Effect>, out: &mut Out<'_>) {
        for effect in effects {
            match effect {
                tool_loop::Effect::Start { call_id, call, target } => {
                    self.start(turn, call_id, call, target, out);
                }
                tool_loop::Effect::Cancel { call_id, kind: ToolKind::Client, reason } => {
                    out.tell(ToClient::ToolCallCancelled { turn_id: turn, call_id, reason });
                }
                tool_loop::Effect::Cancel { kind: ToolKind::Webhook | ToolKind::Mcp, call_id, .. } => {
                    out.push(Effect::CancelTool(call_id));
                }
                tool_loop::Effect::Done(call) => save(turn, call, out),
                tool_loop::Effect::Filler(text) => {
                    self.respond_now(out, |response, out| response.filler(text, out));
                }
                tool_loop::Effect::Generate => {
                    if let Some(generation) = self.turns.answering() {
                        self.generate(generation, out);
                    }
                }
                tool_loop::Effect::GiveUp => {
                    tracing::warn!(session.id = %out.info().id, "the language model does not stop calling tools");
                    let message = "the answer could not be made: the model does not stop calling tools";
                    out.error(Code::AiUnavailable, message, None);
                    self.respond_now(out, Response::failed);
                }
            }
        }
    }

    fn start(&mut self, turn: TurnId, call_id: String, call: ToolCall, target: Target, out: &mut Out<'_>) {
        match target {
            Target::Client if out.profile() == Profile::Mentra => {
                let why = "the client answers no tools".to_owned();
                self.tool_answered(&call_id, ToolKind::Client, Err(why), out);
            }
            Target::Client => {
                self.client_calls.truncate(MAX_CLIENT_CALLS - 1);
                self.client_calls.push_front(call_id.clone());
                out.tell(ToClient::ToolCall {
                    turn_id: turn,
                    call_id,
                    name: call.name,
                    arguments: call.arguments.as_object().cloned().unwrap_or_default(),
                    timeout_ms: out.config().tools.timeout.as_millis() as u64,
                });
            }
            Target::Webhook(_) | Target::Mcp { .. } => {
                let ToolCall { name, arguments, .. } = call;
                let (session, user) = (out.info().id, out.info().user.clone());
                let invocation = Invocation { session, user, turn, call_id, name, arguments };
                out.push(Effect::CallTool(target, invocation));
            }
        }
    }
}

/// Why a client's answer has no output.
enum Answer {
    /// The tool failed, as the client says.
    Failed(String),
    /// The answer itself is wrong.
    Invalid(String),
}

fn output(result: ToolResult) -> Result<ToolOutput, Answer> {
    let ToolResult { call_id: _, output, error, image } = result;
    if let Some(error) = error {
        let end = error.floor_char_boundary(MAX_KEPT_BYTES);
        return Err(Answer::Failed(error[..end].to_owned()));
    }
    if output.is_none() && image.is_none() {
        return Err(Answer::Invalid("output, error or image: one of them is needed".into()));
    }
    let image = image.map(|base64| {
        let data = BASE64_STANDARD.decode(base64).map_err(|_| "image: is not base64".to_owned())?;
        Image::new(data.into()).map_err(|error| format!("image: {error}"))
    });
    let image = image.transpose().map_err(Answer::Invalid)?;
    ToolOutput::new(output.unwrap_or_default(), image)
        .map_err(|problem| Answer::Invalid(format!("output: {problem}")))
}

/// Keeps a call in the history, and counts it.
fn save(turn_id: TurnId, call: FinishedCall, out: &mut Out<'_>) {
    let FinishedCall { name, kind, arguments, outcome, text, image, took } = call;
    let kind = kind.map_or("none", tools::kind_label);
    metrics::counter!(telemetry::TOOL_CALLS, "kind" => kind, "outcome" => outcome.as_str()).increment(1);
    metrics::counter!(telemetry::TOOL_MILLISECONDS, "kind" => kind).increment(took.as_millis() as u64);
    let outcome = outcome.as_str().to_owned();
    out.push(Effect::Save(HistoryItem::Tool { turn_id, name, arguments, outcome, text, image }, None));
}
