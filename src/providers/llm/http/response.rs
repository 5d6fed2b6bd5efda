//! From the events of `genai` to those of a response.

use super::tool_calls::{self, PartialCalls};
use crate::providers::{
    ProviderError,
    llm::{LlmEvent, Machine, ToolCall, Usage},
};
use genai::chat::{ChatStreamEvent, StopReason, StreamEnd};

/// The most events of a response, and the most bytes of text, reasoning and tool calls. The tokens are limited as well,
/// but by the server.
const MAX_EVENTS: usize = 20_000;
const MAX_BYTES: usize = 1024 * 1024;

/// Reasons for which a response ends before it is complete.
const FAILURES: [&str; 9] = [
    "error",
    "failed",
    "cancelled",
    "abort",
    "network_error",
    "OTHER",
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
];

pub(super) struct ResponseReader {
    /// None where `genai` puts tool calls together.
    partial_calls: Option<PartialCalls>,
    /// Bytes of the tool call that `genai` puts together.
    call_bytes: usize,
    events: usize,
    bytes: usize,
    has_begun: bool,
    has_ended: bool,
}

impl ResponseReader {
    pub(super) fn new(calls_come_in_pieces: bool) -> Self {
        Self {
            partial_calls: calls_come_in_pieces.then(PartialCalls::default),
            call_bytes: 0,
            events: 0,
            bytes: 0,
            has_begun: false,
            has_ended: false,
        }
    }

    fn count(&mut self, event: &ChatStreamEvent) -> Result<(), ProviderError> {
        self.events += 1;
        // `genai` makes these two itself.
        self.has_begun |= !matches!(event, ChatStreamEvent::Start | ChatStreamEvent::End(_));
        self.bytes += match event {
            ChatStreamEvent::Chunk(chunk)
            | ChatStreamEvent::ReasoningChunk(chunk)
            | ChatStreamEvent::ThoughtSignatureChunk(chunk) => chunk.content.len(),
            ChatStreamEvent::ToolCallChunk(chunk) => match chunk.tool_call.fn_arguments.as_str() {
                // All of the arguments so far.
                Some(text) if self.partial_calls.is_none() => {
                    let before = std::mem::replace(&mut self.call_bytes, text.len());
                    text.len().saturating_sub(before)
                }
                Some(_) | None => chunk.tool_call.size(),
            },
            ChatStreamEvent::Start | ChatStreamEvent::End(_) | ChatStreamEvent::Heartbeat => 0,
        };
        match self.events > MAX_EVENTS || self.bytes > MAX_BYTES {
            true => Err(ProviderError::Garbled("the response has no end".into())),
            false => Ok(()),
        }
    }

    /// The tool calls of the response, its usage, and whether it was cut.
    fn last_events(&mut self, end: StreamEnd) -> Vec<Result<LlmEvent, ProviderError>> {
        let tokens = |count: Option<i32>| count.and_then(|count| u32::try_from(count).ok());
        let usage = end.captured_usage.as_ref().map(|usage| Usage {
            input_tokens: tokens(usage.prompt_tokens),
            output_tokens: tokens(usage.completion_tokens),
        });
        let usage = usage.filter(|usage| *usage != Usage::default()).map(|usage| Ok(LlmEvent::Usage(usage)));
        let (calls, last) = match end.captured_stop_reason.clone() {
            // Its last tool call is cut as well.
            Some(StopReason::MaxTokens(_)) => (Vec::new(), Some(Ok(LlmEvent::Truncated))),
            // Some of `genai`'s readers take the end of the connection for the end of the response.
            None => (Vec::new(), Some(Err(self.cut()))),
            Some(reason) => match check(reason).and_then(|()| self.calls(end)) {
                Ok(calls) => (calls, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            },
        };
        calls.into_iter().map(|call| Ok(LlmEvent::ToolCall(call))).chain(usage).chain(last).collect()
    }

    /// `genai` leaves out what is none of the protocol's: of a web page there are no events.
    fn cut(&self) -> ProviderError {
        match self.has_begun {
            true => ProviderError::Connection("the answer ended early".into()),
            false => ProviderError::Garbled("no answer of its protocol".into()),
        }
    }

    fn calls(&mut self, end: StreamEnd) -> Result<Vec<ToolCall>, ProviderError> {
        tool_calls::checked(match &mut self.partial_calls {
            Some(partial) => partial.take(),
            None => end.captured_into_tool_calls().unwrap_or_default(),
        })
    }
}

impl Machine for ResponseReader {
    type In = ChatStreamEvent;
    type Out = LlmEvent;

    fn step(&mut self, event: ChatStreamEvent) -> Vec<Result<LlmEvent, ProviderError>> {
        if let Err(error) = self.count(&event) {
            return vec![Err(error)];
        }
        match (event, &mut self.partial_calls) {
            (ChatStreamEvent::Chunk(chunk), _) => vec![Ok(LlmEvent::TextDelta(chunk.content))],
            (ChatStreamEvent::ToolCallChunk(chunk), Some(partial)) => {
                partial.push(chunk.tool_call).err().map(Err).into_iter().collect()
            }
            (ChatStreamEvent::End(end), _) => {
                self.has_ended = true;
                self.last_events(end)
            }
            (
                ChatStreamEvent::ToolCallChunk(_)
                | ChatStreamEvent::Start
                | ChatStreamEvent::ReasoningChunk(_)
                | ChatStreamEvent::ThoughtSignatureChunk(_)
                | ChatStreamEvent::Heartbeat,
                _,
            ) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Result<LlmEvent, ProviderError>> {
        match self.has_ended {
            true => Vec::new(),
            false => vec![Err(self.cut())],
        }
    }
}

fn check(reason: StopReason) -> Result<(), ProviderError> {
    match reason {
        StopReason::ContentFilter(reason) => {
            Err(ProviderError::Refused(format!("its filter ended the answer ({reason})")))
        }
        StopReason::Other(reason) => {
            match FAILURES.iter().find(|failure| failure.eq_ignore_ascii_case(&reason)) {
                Some(failure) => Err(ProviderError::Connection(format!("the answer ended with {failure}"))),
                None => Ok(()),
            }
        }
        StopReason::Completed(_)
        | StopReason::MaxTokens(_)
        | StopReason::ToolCall(_)
        | StopReason::StopSequence(_) => Ok(()),
    }
}
