//! Language models (LLM).

pub(super) mod echo;
pub(super) mod http;
#[cfg(feature = "smollm2")]
pub(super) mod smollm2;

use futures::stream::BoxStream;

use super::ProviderError;

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    pub role: Role,
    pub text: String,
}

/// What a language model is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The system prompt.
    pub system: String,
    /// The conversation, oldest first; the last message is the turn to be answered.
    pub messages: Vec<ChatMessage>,
}

impl Prompt {
    /// The length of its text.
    pub(crate) fn bytes(&self) -> usize {
        self.system.len() + self.messages.iter().map(|message| message.text.len()).sum::<usize>()
    }

    /// The newest messages that fit into so many bytes of text, beginning with one of the user. The last message is
    /// always among them.
    pub(crate) fn recent(&self, bytes: usize) -> &[ChatMessage] {
        let mut left = bytes;
        let fitting = self.messages.iter().rev().take_while(|message| {
            let fits = message.text.len() <= left;
            left = left.saturating_sub(message.text.len());
            fits
        });
        let kept = fitting.count().max(1).min(self.messages.len());
        let recent = &self.messages[self.messages.len() - kept..];
        let first = recent.iter().position(|message| message.role == Role::User).unwrap_or(0);
        &recent[first..]
    }
}

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
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The provider's id of the call; the result refers to it.
    pub id: String,
    pub name: String,
    /// A JSON object.
    pub arguments: serde_json::Value,
}

/// Tokens, as the provider counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
}

/// Generates responses.
pub trait LanguageModel: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Streams the response. The end of the stream is the end of the response; an error ends it early.
    /// Dropping the stream cancels the work.
    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>>;
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

    #[test]
    fn a_long_conversation_is_cut_to_its_newest_messages_and_begins_with_the_user() {
        let message = |role, text: &str| ChatMessage { role, text: text.to_owned() };
        let prompt = Prompt {
            system: String::new(),
            messages: vec![
                message(Role::User, "one"),
                message(Role::Assistant, "two"),
                message(Role::User, "three"),
                message(Role::Assistant, "four"),
                message(Role::User, "five"),
            ],
        };

        assert_eq!(prompt.recent(100), &prompt.messages[..]);
        assert_eq!(prompt.recent(16), &prompt.messages[2..]);
        assert_eq!(prompt.recent(8), &prompt.messages[4..]);
        assert_eq!(prompt.recent(0), &prompt.messages[4..]);
        assert!(Prompt::default().recent(10).is_empty());
    }
}
