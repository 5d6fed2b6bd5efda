//! What of a model's text is its answer.
//!
//! Models write their reasoning between `<think>` and `</think>` into the text, where the endpoint does not take it out.
//! Endpoints send an HTML page where something in front of them failed, or nothing at all.

use futures::stream::BoxStream;

use super::{LlmEvent, Machine, through};
use crate::providers::ProviderError;

const OPENING: [&str; 2] = ["<think>", "<thinking>"];
const CLOSING: [&str; 2] = ["</think>", "</thinking>"];
const PAGE: [&str; 2] = ["<!doctype html", "<html"];

/// The same events without reasoning. An answer that is empty or a web page is an error.
pub(super) fn answers(
    stream: BoxStream<'static, Result<LlmEvent, ProviderError>>,
) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
    through(stream, AnswerFilter::default())
}

#[derive(Default)]
struct AnswerFilter {
    reasoning: ReasoningFilter,
    beginning: Beginning,
    has_tool_call: bool,
}

impl AnswerFilter {
    fn text(&mut self, delta: &str) -> Vec<Result<LlmEvent, ProviderError>> {
        let text = self.reasoning.push(delta);
        delta_of(self.beginning.push(&text))
    }

    /// The text that was held back. A tag or a page that is incomplete is none.
    fn rest(&mut self) -> Vec<Result<LlmEvent, ProviderError>> {
        let text = self.reasoning.rest();
        delta_of(self.beginning.push(&text).map(|text| text + &self.beginning.rest()))
    }

    fn is_empty(&self) -> bool {
        !self.beginning.is_over && !self.has_tool_call
    }
}

impl Machine for AnswerFilter {
    type In = LlmEvent;
    type Out = LlmEvent;

    fn step(&mut self, event: LlmEvent) -> Vec<Result<LlmEvent, ProviderError>> {
        match event {
            LlmEvent::TextDelta(text) => self.text(&text),
            LlmEvent::Usage(_) => vec![Ok(event)],
            LlmEvent::ToolCall(_) => {
                self.has_tool_call = true;
                let mut events = self.rest();
                events.push(Ok(event));
                events
            }
            LlmEvent::Truncated => {
                let mut events = self.rest();
                events.push(if self.is_empty() { Err(ProviderError::Empty) } else { Ok(event) });
                events
            }
        }
    }

    fn end(&mut self) -> Vec<Result<LlmEvent, ProviderError>> {
        let mut events = self.rest();
        if self.is_empty() && events.is_empty() {
            events.push(Err(ProviderError::Empty));
        }
        events
    }
}

fn delta_of(text: Result<String, ProviderError>) -> Vec<Result<LlmEvent, ProviderError>> {
    match text {
        Ok(text) if text.is_empty() => Vec::new(),
        Ok(text) => vec![Ok(LlmEvent::TextDelta(text))],
        Err(error) => vec![Err(error)],
    }
}

/// Takes the reasoning out of a text that comes in pieces. A closing tag without an opening one is dropped: some chat
/// templates put the opening tag into the prompt.
#[derive(Default)]
struct ReasoningFilter {
    is_inside: bool,
    /// What may become a tag.
    held: String,
}

impl ReasoningFilter {
    /// The text that is not reasoning.
    fn push(&mut self, delta: &str) -> String {
        self.held.push_str(delta);
        let text = std::mem::take(&mut self.held);
        let (mut rest, mut visible) = (text.as_str(), String::new());
        while let Some(at) = rest.find('<') {
            self.keep(&rest[..at], &mut visible);
            rest = &rest[at..];
            if let Some(tag) = OPENING.iter().find(|tag| begins_with(rest, tag)) {
                self.is_inside = true;
                rest = &rest[tag.len()..];
            } else if let Some(tag) = CLOSING.iter().find(|tag| begins_with(rest, tag)) {
                self.is_inside = false;
                rest = &rest[tag.len()..];
            } else if OPENING.iter().chain(&CLOSING).any(|tag| begins_with(tag, rest)) {
                self.held = rest.to_owned();
                return visible;
            } else {
                self.keep("<", &mut visible);
                rest = &rest[1..];
            }
        }
        self.keep(rest, &mut visible);
        visible
    }

    fn rest(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        if self.is_inside { String::new() } else { held }
    }

    fn keep(&self, text: &str, visible: &mut String) {
        if !self.is_inside {
            visible.push_str(text);
        }
    }
}

/// Holds the beginning of an answer back until it is known to be no web page. White space before the answer is dropped.
#[derive(Default)]
struct Beginning {
    held: String,
    is_over: bool,
}

impl Beginning {
    fn push(&mut self, text: &str) -> Result<String, ProviderError> {
        if self.is_over {
            return Ok(text.to_owned());
        }
        self.held.push_str(text);
        self.held.drain(..self.held.len() - self.held.trim_start().len());
        if PAGE.iter().any(|page| begins_with(&self.held, page)) {
            return Err(ProviderError::Garbled("a web page".into()));
        }
        if PAGE.iter().any(|page| begins_with(page, &self.held)) {
            return Ok(String::new());
        }
        Ok(self.rest())
    }

    fn rest(&mut self) -> String {
        self.is_over |= !self.held.is_empty();
        std::mem::take(&mut self.held)
    }
}

/// Without regard to the case of ASCII letters.
fn begins_with(text: &str, beginning: &str) -> bool {
    let start = text.as_bytes().get(..beginning.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(beginning.as_bytes()))
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::providers::llm::{ToolCall, Usage, tests::text_of};

    fn delta(text: &str) -> Result<LlmEvent, ProviderError> {
        Ok(LlmEvent::TextDelta(text.to_owned()))
    }

    fn filtered(events: Vec<Result<LlmEvent, ProviderError>>) -> Vec<Result<LlmEvent, ProviderError>> {
        answers(stream::iter(events).boxed()).collect::<Vec<_>>().now_or_never().unwrap()
    }

    /// The whole text of an answer that comes in these pieces.
    fn answer<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Result<String, ProviderError> {
        let events = filtered(pieces.into_iter().map(delta).collect());
        events.into_iter().map(|event| event.map(|event| text_of(Ok(event)))).collect()
    }

    fn call() -> LlmEvent {
        LlmEvent::ToolCall(ToolCall {
            id: "a".into(),
            name: "moon".into(),
            arguments: json!({}),
            signature: None,
        })
    }

    #[test]
    fn reasoning_is_not_part_of_the_answer() {
        for (text, expected) in [
            ("<think>Hm.</think>Up there.", "Up there."),
            ("<think>\nHm.\n</think>\n\nUp there.", "Up there."),
            ("<thinking>Hm.</thinking> Up there.", "Up there."),
            ("<THINK>Hm.</Think>Up there.", "Up there."),
            ("Up <think>Hm.</think>there.", "Up there."),
            ("<think>a</think>Up <think>b</think>there.", "Up there."),
            ("Up there.<think>Was that", "Up there."),
            ("Up there.</think>", "Up there."),
            ("<think>is 1 < 2?</think>Yes: 1 < 2.", "Yes: 1 < 2."),
            ("a <b>c</b> <thin", "a <b>c</b> <thin"),
        ] {
            assert_eq!(answer([text]).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nothing_but_white_space_and_reasoning_is_no_answer() {
        for text in
            ["", " \n\t", "<think></think>", "<think>Hm.</think>\n", "<think>without an end", "</think>"]
        {
            assert_eq!(answer([text]), Err(ProviderError::Empty), "{text:?}");
        }
        assert_eq!(filtered(Vec::new()), [Err(ProviderError::Empty)]);
    }

    #[test]
    fn an_answer_that_was_cut_within_its_reasoning_is_empty() {
        let events = filtered(vec![delta("<think>Hm"), Ok(LlmEvent::Truncated)]);

        assert_eq!(events, [Err(ProviderError::Empty)]);
        assert_eq!(
            filtered(vec![delta("Up"), Ok(LlmEvent::Truncated)]),
            [delta("Up"), Ok(LlmEvent::Truncated)]
        );
    }

    #[test]
    fn a_tool_call_is_an_answer_and_comes_after_the_text_before_it() {
        assert_eq!(filtered(vec![Ok(call())]), [Ok(call())]);
        assert_eq!(
            filtered(vec![delta("<think>Hm.</think>One moment <"), Ok(call())]),
            [delta("One moment "), delta("<"), Ok(call())]
        );
    }

    #[test]
    fn a_web_page_is_no_answer() {
        let page = Err(ProviderError::Garbled("a web page".into()));
        for text in [
            "<!DOCTYPE html><html><body>502</body></html>",
            "\n<html lang=\"en\">",
            "<think></think><HTML>",
            "  <!doctype HTML PUBLIC",
        ] {
            assert_eq!(answer([text]), page, "{text}");
        }
        assert_eq!(answer(["<!doc"]).as_deref(), Ok("<!doc"));
        assert_eq!(answer(["It begins with <html>."]).as_deref(), Ok("It begins with <html>."));
    }

    #[test]
    fn the_tokens_of_an_empty_answer_count() {
        let usage = Usage { input_tokens: Some(31), output_tokens: Some(2) };

        let events = filtered(vec![Ok(LlmEvent::Usage(usage))]);

        assert_eq!(events, [Ok(LlmEvent::Usage(usage)), Err(ProviderError::Empty)]);
    }

    #[test]
    fn nothing_follows_an_error() {
        let lost = || Err(ProviderError::Connection("lost".into()));

        assert_eq!(filtered(vec![delta("Up"), lost(), delta("there")]), [delta("Up"), lost()]);
    }

    #[test]
    fn text_is_not_held_back_without_need() {
        let events = filtered(vec![delta("Up "), delta("the"), delta("re.")]);

        assert_eq!(events, [delta("Up "), delta("the"), delta("re.")]);
    }

    fn text() -> impl Strategy<Value = String> {
        const PARTS: [&str; 10] = [
            "<think>",
            "</think>",
            "<thinking>",
            "</thinking>",
            "<",
            "<html",
            "<!doctype html",
            " ",
            "ü",
            "a",
        ];
        prop::collection::vec(prop::sample::select(&PARTS[..]), 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_text_is_divided(
            text in text(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut at: Vec<usize> =
                cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces = at.windows(2).map(|ends| &text[ends[0]..ends[1]]);

            prop_assert_eq!(answer(pieces), answer([text.as_str()]));
        }

        #[test]
        fn an_answer_without_tags_stays_as_it_is(text in "[a-z][a-z .,!?äß\n>/-]{0,60}") {
            prop_assert_eq!(answer(text.split_inclusive(' ')), Ok(text.clone()));
        }

        #[test]
        fn reasoning_never_shows(before in "[a-z ]{0,9}", reasoning in "[A-Z <>/]{0,20}", after in "[a-z ]{0,9}") {
            let text = format!("{before}<think>{reasoning}</think>{after}");

            let answer = answer(text.split_inclusive(['<', 'i', ' '])).unwrap_or_default();

            let expected = format!("{before}{after}");
            prop_assert_eq!(answer, expected.trim_start());
        }
    }
}
