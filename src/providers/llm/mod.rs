//! Language models (LLM).

mod answer_filter;
pub(super) mod anthropic;
pub(super) mod echo;
pub(crate) mod fallback;
pub(super) mod gemini;
mod http;
pub(super) mod ollama;
pub(super) mod openai;
mod prompt;
#[cfg(feature = "smollm2")]
pub(super) mod smollm2;
#[cfg(test)]
mod suite;

use std::sync::Arc;

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::{ProviderError, inference::worker_pool::Hold};

pub use prompt::{ChatMessage, Image, ImageError, MAX_IMAGE_BYTES, Prompt, ToolResult, ToolSpec};

/// What a language model produces.
#[derive(Clone, Debug, PartialEq)]
pub enum LlmEvent {
    /// The next piece of the text.
    TextDelta(String),
    /// A call of one of the tools that the prompt offers.
    ToolCall(ToolCall),
    /// The tokens of the whole response, where the provider reports them.
    Usage(Usage),
    /// The text ends here because it reached the provider's greatest length; the last event.
    Truncated,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The provider's id of the call, which no other call of the response has; the result refers to it.
    pub id: String,
    pub name: String,
    /// A JSON object.
    pub arguments: serde_json::Value,
    /// What the provider wants back with the call, unread: Gemini's thought signature.
    pub signature: Option<String>,
}

/// Tokens, as the provider counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
}

/// Whether another provider may be asked beside the first; it then counts that call.
pub type HedgePermit = Box<dyn FnOnce() -> bool + Send>;

/// Generates responses.
pub trait LanguageModel: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Whether the images of a prompt reach the model. Otherwise a note stands in their place.
    fn sees_images(&self) -> bool {
        false
    }

    /// Whether it continues an answer that it is told to continue. Otherwise it gets the conversation without the beginning
    /// of the answer.
    fn continues_answers(&self) -> bool {
        true
    }

    /// Those of its providers that translate, in the order in which they are tried.
    fn translators(&self) -> Vec<&'static str> {
        vec![self.name()]
    }

    /// The same with these of its providers only, in this order; none if it has none of them.
    fn select(&self, _names: &[String]) -> Option<Arc<dyn LanguageModel>> {
        None
    }

    /// Whoever holds it will soon need it: an embedded model is loaded meanwhile, and stays in memory.
    fn hold(&self) -> Hold {
        Hold::default()
    }

    /// Streams the response. The end of the stream is the end of the response; an error ends it early.
    /// Dropping the stream cancels the work.
    ///
    /// A response without text and tool calls is [`ProviderError::Empty`]. What the model writes as its reasoning is not
    /// part of the text.
    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>>;

    /// The same, where another provider may be asked beside one that is slow.
    fn respond_hedged(
        &self,
        prompt: Prompt,
        _permit: HedgePermit,
    ) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.respond(prompt)
    }
}

/// A machine that a stream is put through.
trait Machine: Send + 'static {
    type In;
    type Out: Send + 'static;

    fn step(&mut self, item: Self::In) -> Vec<Result<Self::Out, ProviderError>>;

    /// The stream has ended without an error.
    fn end(&mut self) -> Vec<Result<Self::Out, ProviderError>>;
}

type ProviderStream<T> = BoxStream<'static, Result<T, ProviderError>>;

/// What the machine makes of the stream, up to the first error.
fn through<M: Machine>(stream: ProviderStream<M::In>, machine: M) -> ProviderStream<M::Out> {
    let next = |state: Option<(ProviderStream<M::In>, M)>| async {
        let (mut stream, mut machine) = state?;
        let (mut items, mut ended) = match stream.next().await {
            Some(Ok(item)) => (machine.step(item), false),
            Some(Err(error)) => (vec![Err(error)], true),
            None => (machine.end(), true),
        };
        if let Some(error) = items.iter().position(Result::is_err) {
            items.truncate(error + 1);
            ended = true;
        }
        Some((stream::iter(items), (!ended).then_some((stream, machine))))
    };
    stream::unfold(Some((stream, machine)), next).flatten().boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of an event, which must be a text delta.
    pub(super) fn text_of(event: Result<LlmEvent, ProviderError>) -> String {
        match event.unwrap() {
            LlmEvent::TextDelta(text) => text,
            other @ (LlmEvent::ToolCall(_) | LlmEvent::Usage(_) | LlmEvent::Truncated) => panic!("{other:?}"),
        }
    }
}
