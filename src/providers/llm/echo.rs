//! The echo model: repeats the user's words, and says that no language model is configured.
//!
//! It needs no model file and no account, so that a fresh installation answers speech with speech.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::{ChatMessage, LanguageModel, LlmEvent, Prompt};
use crate::providers::{ProviderError, registry::LoadContext};

pub(in crate::providers) const NAME: &str = "echo";

pub(in crate::providers) fn load(_: &LoadContext<'_>) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    Ok(Arc::new(EchoModel))
}

pub(super) struct EchoModel;

impl LanguageModel for EchoModel {
    fn name(&self) -> &'static str {
        NAME
    }

    /// It would repeat the instruction.
    fn continues_answers(&self) -> bool {
        false
    }

    /// It repeats.
    fn translators(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let answer = answer(&prompt);
        // Word by word, as a model's tokens come.
        let words: Vec<_> =
            answer.split_inclusive(' ').map(|word| Ok(LlmEvent::TextDelta(word.to_owned()))).collect();
        stream::iter(words).boxed()
    }
}

/// The first sentence is short, so that its speech begins early.
fn answer(prompt: &Prompt) -> String {
    let text = match prompt.messages.last() {
        Some(ChatMessage::User { text, .. }) => text.trim(),
        Some(ChatMessage::Assistant { .. } | ChatMessage::ToolResult(_)) | None => "",
    };
    if text.is_empty() {
        return "I heard nothing.".to_owned();
    }
    let answered_before =
        prompt.messages.iter().any(|message| matches!(message, ChatMessage::Assistant { .. }));
    let text = match text.ends_with(['.', '!', '?']) {
        true => text.to_owned(),
        false => format!("{}.", text.trim_end_matches([',', ';', ':', '-'])),
    };
    match answered_before {
        false => format!("Hello. This is the echo model: no language model is configured. You said: {text}"),
        true => format!("You said: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::llm::tests::text_of;

    fn prompt(messages: &[ChatMessage]) -> Prompt {
        Prompt::new("", messages.to_vec())
    }

    #[tokio::test]
    async fn the_first_answer_says_that_there_is_no_model_and_repeats_what_was_said() {
        let pieces: Vec<_> =
            EchoModel.respond(prompt(&[ChatMessage::user("Go forward")])).map(text_of).collect().await;

        assert_eq!(pieces[0], "Hello. ");
        assert_eq!(
            pieces.concat(),
            "Hello. This is the echo model: no language model is configured. You said: Go forward."
        );
    }

    #[test]
    fn later_answers_only_repeat() {
        let later = prompt(&[
            ChatMessage::user("One."),
            ChatMessage::assistant("You said: One."),
            ChatMessage::user("Two?"),
        ]);

        assert_eq!(answer(&later), "You said: Two?");
    }

    #[test]
    fn an_empty_turn_is_answered_by_saying_so() {
        assert_eq!(answer(&Prompt::default()), "I heard nothing.");
        assert_eq!(answer(&prompt(&[ChatMessage::user("  ")])), "I heard nothing.");
    }
}
