//! From a prompt to `genai`'s request.

use base64::{Engine, prelude::BASE64_STANDARD};
use genai::chat::{
    Binary, ChatMessage as GenaiMessage, ChatRequest, ContentPart, MessageContent, Tool,
    ToolCall as GenaiCall, ToolResponse,
};

use crate::providers::llm::{ChatMessage, Image, Prompt, ToolCall, ToolResult, ToolSpec};

/// How much of a conversation is sent, in bytes of text: about 6,000 tokens.
const HISTORY_BYTES: usize = 24_000;
/// How many images are sent: the newest ones.
const MAX_IMAGES: usize = 4;

/// In place of what the model does not get.
const UNSEEN: &str = "[An image that you cannot see.]";
const OLD: &str = "[An earlier image, no longer shown.]";
const CANCELLED: &str = "Cancelled: there is no result.";

/// In the order that all APIs take: each message with tool calls is followed by one result for each of its calls.
pub(super) fn request(prompt: &Prompt, sees_images: bool) -> ChatRequest {
    let recent = prompt.recent(HISTORY_BYTES);
    let mut images = Images::new(recent, sees_images);
    let mut messages = Vec::new();
    let mut rest = recent.iter().peekable();
    while let Some(message) = rest.next() {
        match message {
            ChatMessage::User { text, images: attached } => {
                let mut parts = text_part(text);
                parts.extend(attached.iter().map(|image| images.part(image)));
                messages.extend(user(parts));
            }
            ChatMessage::Assistant { text, tool_calls } => {
                let parts: Vec<_> = text_part(text)
                    .into_iter()
                    .chain(tool_calls.iter().map(|call| ContentPart::ToolCall(genai_call(call))))
                    .collect();
                if parts.is_empty() {
                    continue;
                }
                messages.push(GenaiMessage::assistant(MessageContent::from_parts(parts)));
                let mut results = Vec::new();
                while let Some(ChatMessage::ToolResult(result)) =
                    rest.next_if(|next| matches!(next, ChatMessage::ToolResult(_)))
                {
                    results.push(result);
                }
                messages.extend(tool_results(tool_calls, &results, &mut images));
            }
            // Its call is not there.
            ChatMessage::ToolResult(result) => images.skip(result.image.iter().count()),
        }
    }
    let mut request = ChatRequest::from_messages(messages);
    if !prompt.system.is_empty() {
        request = request.with_system(&prompt.system);
    }
    if !prompt.tools.is_empty() {
        request = request.with_tools(prompt.tools.iter().map(tool));
    }
    request
}

/// The results of calls, and a message of the user with their images: not every API takes images in results.
fn tool_results(calls: &[ToolCall], results: &[&ToolResult], images: &mut Images) -> Vec<GenaiMessage> {
    if calls.is_empty() {
        images.skip(results.iter().filter(|result| result.image.is_some()).count());
        return Vec::new();
    }
    let mut seen = Vec::new();
    let responses: Vec<_> = calls
        .iter()
        .map(|call| {
            let result = results.iter().find(|result| result.call_id == call.id);
            let mut text = result.map_or_else(|| CANCELLED.to_owned(), |result| result.text.clone());
            if let Some(image) = result.and_then(|result| result.image.as_ref()) {
                let part = images.part(image);
                if let ContentPart::Text(note) = part {
                    text = format!("{text}\n{note}").trim_start().to_owned();
                } else {
                    seen.push(ContentPart::Text(format!("The image of {} ({}):", call.name, call.id)));
                    seen.push(part);
                }
            }
            ToolResponse::new(&call.id, text).with_fn_name(&call.name)
        })
        .collect();
    let results = GenaiMessage::tool(MessageContent::from_tool_responses(responses));
    [results].into_iter().chain(user(seen)).collect()
}

fn user(parts: Vec<ContentPart>) -> Option<GenaiMessage> {
    (!parts.is_empty()).then(|| GenaiMessage::user(MessageContent::from_parts(parts)))
}

/// APIs refuse parts without text.
fn text_part(text: &str) -> Vec<ContentPart> {
    let text = Some(text).filter(|text| !text.trim().is_empty());
    text.map(|text| ContentPart::Text(text.to_owned())).into_iter().collect()
}

fn genai_call(call: &ToolCall) -> GenaiCall {
    GenaiCall {
        call_id: call.id.clone(),
        fn_name: call.name.clone(),
        fn_arguments: call.arguments.clone(),
        thought_signatures: call.signature.clone().map(|signature| vec![signature]),
    }
}

fn tool(spec: &ToolSpec) -> Tool {
    Tool::new(spec.name.as_str())
        .with_description(spec.description.as_str())
        .with_schema(spec.parameters.clone())
}

/// Which images of a conversation are sent.
struct Images {
    sees: bool,
    /// How many come before those that are sent.
    old: usize,
}

impl Images {
    fn new(messages: &[ChatMessage], sees: bool) -> Self {
        let count: usize = messages
            .iter()
            .map(|message| match message {
                ChatMessage::User { images, .. } => images.len(),
                ChatMessage::ToolResult(result) => result.image.iter().count(),
                ChatMessage::Assistant { .. } => 0,
            })
            .sum();
        Self { sees, old: count.saturating_sub(MAX_IMAGES) }
    }

    /// The next image, or the note in its place.
    fn part(&mut self, image: &Image) -> ContentPart {
        if !self.sees {
            return ContentPart::Text(UNSEEN.to_owned());
        }
        if self.old > 0 {
            self.skip(1);
            return ContentPart::Text(OLD.to_owned());
        }
        let data = BASE64_STANDARD.encode(image.data());
        ContentPart::Binary(Binary::from_base64(image.media_type(), data, None))
    }

    /// Leaves the next images out.
    fn skip(&mut self, count: usize) {
        self.old = self.old.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use genai::chat::ChatRole;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn image() -> Image {
        Image::new(Bytes::from_static(b"\x89PNG\r\n\x1a\n")).unwrap()
    }

    fn calls(ids: &[&str]) -> ChatMessage {
        let call = |id: &&str| ToolCall {
            id: (*id).into(),
            name: "camera".into(),
            arguments: json!({}),
            signature: None,
        };
        ChatMessage::Assistant { text: String::new(), tool_calls: ids.iter().map(call).collect() }
    }

    fn result(id: &str, image: Option<Image>) -> ChatMessage {
        ChatMessage::ToolResult(ToolResult { call_id: id.into(), text: format!("of {id}"), image })
    }

    /// A message in a line: its role, its texts, its calls (`!`), its results (`=`) and its images (`#`).
    fn line(message: &GenaiMessage) -> String {
        let parts = message.content.parts().iter().map(|part| match part {
            ContentPart::Text(text) => text.clone(),
            ContentPart::ToolCall(call) => format!("!{}", call.call_id),
            ContentPart::ToolResponse(result) => format!("={}: {}", result.call_id, result.content),
            ContentPart::Binary(_) => "#".to_owned(),
            ContentPart::ThoughtSignature(_) | ContentPart::ReasoningContent(_) | ContentPart::Custom(_) => {
                panic!("{part:?}")
            }
        });
        let parts: Vec<_> = parts.collect();
        format!("{}: {}", message.role, parts.join(" | "))
    }

    fn lines(messages: Vec<ChatMessage>, sees_images: bool) -> Vec<String> {
        request(&Prompt::new("", messages), sees_images).messages.iter().map(line).collect()
    }

    #[test]
    fn each_call_is_followed_by_its_result() {
        let messages = vec![
            ChatMessage::user("Look."),
            calls(&["a", "b"]),
            result("b", None),
            result("a", None),
            result("a", None),
            ChatMessage::assistant("Done."),
        ];

        assert_eq!(
            lines(messages, true),
            ["User: Look.", "Assistant: !a | !b", "Tool: =a: of a | =b: of b", "Assistant: Done."]
        );
    }

    #[test]
    fn a_call_without_a_result_gets_one_and_a_result_without_a_call_is_left_out() {
        let messages = vec![
            ChatMessage::user("Look."),
            calls(&["a"]),
            ChatMessage::user("Stop."),
            result("a", None),
            ChatMessage::assistant(""),
            ChatMessage::assistant("Well."),
            result("c", None),
        ];

        assert_eq!(
            lines(messages, true),
            [
                "User: Look.",
                "Assistant: !a",
                "Tool: =a: Cancelled: there is no result.",
                "User: Stop.",
                "Assistant: Well."
            ]
        );
    }

    #[test]
    fn the_image_of_a_tool_follows_the_results() {
        let messages = vec![
            ChatMessage::user("Look."),
            calls(&["a", "b"]),
            result("a", Some(image())),
            result("b", None),
        ];

        assert_eq!(
            lines(messages.clone(), true)[2..],
            ["Tool: =a: of a | =b: of b", "User: The image of camera (a): | #"]
        );
        assert_eq!(lines(messages, false)[2..], [format!("Tool: =a: of a\n{UNSEEN} | =b: of b")]);
    }

    #[test]
    fn a_note_takes_the_place_of_an_image_that_the_model_does_not_get() {
        let with_images = |count| ChatMessage::User { text: String::new(), images: vec![image(); count] };

        assert_eq!(lines(vec![with_images(1)], true), ["User: #"]);
        assert_eq!(lines(vec![with_images(1)], false), [format!("User: {UNSEEN}")]);
        assert_eq!(
            lines(vec![with_images(1), ChatMessage::assistant("Hm."), with_images(4)], true),
            [format!("User: {OLD}"), "Assistant: Hm.".into(), "User: # | # | # | #".into()]
        );
    }

    #[derive(Clone, Debug)]
    enum Part {
        User,
        Assistant,
        Calls(Vec<usize>),
        Result(usize),
    }

    proptest! {
        #[test]
        fn whatever_the_conversation_is_every_api_takes_its_order(
            parts in prop::collection::vec(
                prop_oneof![
                    Just(Part::User),
                    Just(Part::Assistant),
                    prop::collection::btree_set(0..4usize, 1..3).prop_map(|ids| Part::Calls(ids.into_iter().collect())),
                    (0..4usize).prop_map(Part::Result),
                ],
                0..12,
            ),
        ) {
            let ids = ["a", "b", "c", "d"];
            let messages = parts.iter().map(|part| match part {
                Part::User => ChatMessage::user("Hello."),
                Part::Assistant => ChatMessage::assistant("Hi."),
                Part::Calls(calls_of) => calls(&calls_of.iter().map(|id| ids[*id]).collect::<Vec<_>>()),
                Part::Result(id) => result(ids[*id], None),
            });

            let request = request(&Prompt::new("", messages.collect()), true);

            let mut open: Vec<String> = Vec::new();
            for message in &request.messages {
                let answered: Vec<String> =
                    message.content.tool_responses().iter().map(|result| result.call_id.clone()).collect();
                prop_assert_eq!(&answered, &open);
                prop_assert_eq!(message.role == ChatRole::Tool, !answered.is_empty());
                open = message.content.tool_calls().iter().map(|call| call.call_id.clone()).collect();
            }
            prop_assert!(open.is_empty());
        }
    }
}
