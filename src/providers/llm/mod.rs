//! Language models (LLM).

pub mod echo;
pub mod http;
#[cfg(feature = "smollm2")]
pub mod smollm2;

use futures::stream::BoxStream;

use super::ProviderError;

/// Who said a line of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The wearer.
    User,
    /// The gateway's answer.
    Assistant,
}

/// One line of the conversation so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who said it.
    pub role: Role,
    /// What was said, as it was heard.
    pub text: String,
}

/// What a thinker is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Standing instructions.
    pub system: String,
    /// The conversation, oldest first; the last line is the user's turn to be answered.
    pub messages: Vec<ChatMessage>,
}

impl Prompt {
    /// The newest lines that fit into so many bytes of text, beginning with one of the user's. The
    /// last line is among them whatever its length.
    pub fn recent(&self, bytes: usize) -> &[ChatMessage] {
        let mut left = bytes;
        let fitting = self.messages.iter().rev().take_while(|line| {
            let fits = line.text.len() <= left;
            left = left.saturating_sub(line.text.len());
            fits
        });
        let kept = fitting.count().max(1).min(self.messages.len());
        let recent = &self.messages[self.messages.len() - kept..];
        let first = recent.iter().position(|line| line.role == Role::User).unwrap_or(0);
        &recent[first..]
    }
}

/// What a language model produces.
#[derive(Clone, Debug, PartialEq)]
pub enum LlmEvent {
    /// More of the text; appends.
    TextDelta(String),
    /// A call of one of the tools that the prompt offers.
    ToolCall(ToolCall),
    /// What the response cost, where the provider says so.
    Usage(Usage),
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The provider's id of the call, to be answered by.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, a JSON object.
    pub arguments: serde_json::Value,
}

/// Tokens, as the provider counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: Option<u32>,
    /// Tokens of the response.
    pub output_tokens: Option<u32>,
}

/// Answers a turn.
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

    /// The text of an event that is nothing else.
    pub(super) fn text_of(event: Result<LlmEvent, ProviderError>) -> String {
        match event.unwrap() {
            LlmEvent::TextDelta(text) => text,
            other @ (LlmEvent::ToolCall(_) | LlmEvent::Usage(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_long_conversation_is_cut_to_its_newest_lines_and_begins_with_the_user() {
        let line = |role, text: &str| ChatMessage { role, text: text.to_owned() };
        let prompt = Prompt {
            system: String::new(),
            messages: vec![
                line(Role::User, "one"),
                line(Role::Assistant, "two"),
                line(Role::User, "three"),
                line(Role::Assistant, "four"),
                line(Role::User, "five"),
            ],
        };

        assert_eq!(prompt.recent(100), &prompt.messages[..]);
        assert_eq!(prompt.recent(16), &prompt.messages[2..]);
        assert_eq!(prompt.recent(8), &prompt.messages[4..]);
        assert_eq!(prompt.recent(0), &prompt.messages[4..]);
        assert!(Prompt::default().recent(10).is_empty());
    }
}
