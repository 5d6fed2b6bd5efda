//! The scripted thinker: no model, no account. It says so, and repeats what it heard.
//!
//! It exists so that a sentence spoken to a fresh installation comes back as speech, and is named
//! for what it is, so that nobody takes it for a language model.

use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::providers::{
    ProviderError,
    llm::{LanguageModel, LlmEvent, Prompt, Role},
};

/// Repeats what it hears.
#[derive(Clone, Copy, Debug, Default)]
pub struct EchoModel;

impl LanguageModel for EchoModel {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let answer = answer(&prompt);
        // Word by word, each with the space before it, as a model's tokens come.
        let words: Vec<_> =
            answer.split_inclusive(' ').map(|word| Ok(LlmEvent::TextDelta(word.to_owned()))).collect();
        stream::iter(words).boxed()
    }
}

/// A short first clause, so that speech can begin early.
fn answer(prompt: &Prompt) -> String {
    let heard =
        prompt.messages.last().filter(|last| last.role == Role::User).map_or("", |last| last.text.trim());
    if heard.is_empty() {
        return "I heard nothing.".to_owned();
    }
    let met_before = prompt.messages.iter().any(|message| message.role == Role::Assistant);
    let heard = match heard.ends_with(['.', '!', '?']) {
        true => heard.to_owned(),
        false => format!("{}.", heard.trim_end_matches([',', ';', ':', '-'])),
    };
    match met_before {
        false => format!("Hello. I am an echo: no language model is configured here. You said: {heard}"),
        true => format!("You said: {heard}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::llm::{ChatMessage, tests::text_of};

    fn prompt(lines: &[(Role, &str)]) -> Prompt {
        let lines =
            lines.iter().map(|(role, text)| ChatMessage { role: *role, text: (*text).to_owned() }).collect();
        Prompt { system: String::new(), messages: lines }
    }

    #[tokio::test]
    async fn the_first_answer_says_that_there_is_no_model_and_repeats_what_was_said() {
        let pieces: Vec<_> =
            EchoModel.respond(prompt(&[(Role::User, "Go forward")])).map(text_of).collect().await;

        assert_eq!(pieces[0], "Hello. ");
        assert_eq!(
            pieces.concat(),
            "Hello. I am an echo: no language model is configured here. You said: Go forward."
        );
    }

    #[test]
    fn later_answers_only_repeat() {
        let later =
            prompt(&[(Role::User, "One."), (Role::Assistant, "You said: One."), (Role::User, "Two?")]);

        assert_eq!(answer(&later), "You said: Two?");
    }

    #[test]
    fn nothing_heard_is_said_to_be_nothing() {
        assert_eq!(answer(&Prompt::default()), "I heard nothing.");
        assert_eq!(answer(&prompt(&[(Role::User, "  ")])), "I heard nothing.");
    }
}
