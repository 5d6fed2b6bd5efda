//! The echo model: repeats the user's words, and says that no language model is configured.
//!
//! It needs no model file and no account, so that a fresh installation answers speech with speech.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::{LanguageModel, LlmEvent, Prompt, Role};
use crate::providers::{ProviderError, registry::LoadContext};

pub(in crate::providers) const NAME: &str = "echo";

pub(in crate::providers) fn load(_: &LoadContext<'_>) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    Ok(Arc::new(EchoModel))
}

struct EchoModel;

impl LanguageModel for EchoModel {
    fn name(&self) -> &'static str {
        NAME
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
    let text =
        prompt.messages.last().filter(|last| last.role == Role::User).map_or("", |last| last.text.trim());
    if text.is_empty() {
        return "I heard nothing.".to_owned();
    }
    let answered_before = prompt.messages.iter().any(|message| message.role == Role::Assistant);
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
    use crate::providers::llm::{ChatMessage, tests::text_of};

    fn prompt(messages: &[(Role, &str)]) -> Prompt {
        let messages = messages
            .iter()
            .map(|(role, text)| ChatMessage { role: *role, text: (*text).to_owned() })
            .collect();
        Prompt { system: String::new(), messages }
    }

    #[tokio::test]
    async fn the_first_answer_says_that_there_is_no_model_and_repeats_what_was_said() {
        let pieces: Vec<_> =
            EchoModel.respond(prompt(&[(Role::User, "Go forward")])).map(text_of).collect().await;

        assert_eq!(pieces[0], "Hello. ");
        assert_eq!(
            pieces.concat(),
            "Hello. This is the echo model: no language model is configured. You said: Go forward."
        );
    }

    #[test]
    fn later_answers_only_repeat() {
        let later =
            prompt(&[(Role::User, "One."), (Role::Assistant, "You said: One."), (Role::User, "Two?")]);

        assert_eq!(answer(&later), "You said: Two?");
    }

    #[test]
    fn an_empty_turn_is_answered_by_saying_so() {
        assert_eq!(answer(&Prompt::default()), "I heard nothing.");
        assert_eq!(answer(&prompt(&[(Role::User, "  ")])), "I heard nothing.");
    }
}
