//! What a language model is asked: a conversation, and the tools that it may call.

use std::fmt;

use bytes::Bytes;

use super::ToolCall;

/// Largest image, in bytes. Anthropic takes 5 MB of base64.
pub const MAX_IMAGE_BYTES: usize = 3 * 1024 * 1024;

/// What an image counts as, in bytes of text: about 1,000 tokens.
const IMAGE_AS_TEXT: usize = 4_000;

/// What a language model is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The system prompt.
    pub system: String,
    /// The conversation, oldest first. The last turn, which is to be answered, begins with the last message of the user.
    pub messages: Vec<ChatMessage>,
    /// What the model may call.
    pub tools: Vec<ToolSpec>,
}

impl Prompt {
    /// Without tools.
    pub fn new(system: impl Into<String>, messages: Vec<ChatMessage>) -> Self {
        Self { system: system.into(), messages, tools: Vec::new() }
    }

    /// The length of its text.
    pub(crate) fn bytes(&self) -> usize {
        let messages: usize = self.messages.iter().map(ChatMessage::bytes).sum();
        self.system.len() + messages + self.tools.iter().map(ToolSpec::bytes).sum::<usize>()
    }

    /// The newest turns that fit into so many bytes of text. The last turn is always among them, and each turn is
    /// whole: a tool call is never without its result.
    pub(crate) fn recent(&self, bytes: usize) -> &[ChatMessage] {
        let (mut start, mut length) = (None, 0);
        for (index, message) in self.messages.iter().enumerate().rev() {
            length += message.bytes();
            if length > bytes && start.is_some() {
                break;
            }
            if matches!(message, ChatMessage::User { .. }) {
                start = Some(index);
            }
        }
        &self.messages[start.unwrap_or(0)..]
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatMessage {
    User {
        text: String,
        images: Vec<Image>,
    },
    /// What the model said, and which tools it called; their results follow.
    Assistant {
        text: String,
        tool_calls: Vec<ToolCall>,
    },
    ToolResult(ToolResult),
}

impl ChatMessage {
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { text: text.into(), images: Vec::new() }
    }

    pub fn assistant(text: impl Into<String>) -> Self {
        Self::Assistant { text: text.into(), tool_calls: Vec::new() }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::User { text, .. } | Self::Assistant { text, .. } => text,
            Self::ToolResult(result) => &result.text,
        }
    }

    /// The length of its text, in which images and tool calls count.
    pub(crate) fn bytes(&self) -> usize {
        self.text().len()
            + match self {
                Self::User { images, .. } => images.len() * IMAGE_AS_TEXT,
                Self::Assistant { tool_calls, .. } => {
                    tool_calls.iter().map(|call| call.name.len() + call.arguments.to_string().len()).sum()
                }
                Self::ToolResult(result) => result.image.iter().count() * IMAGE_AS_TEXT,
            }
    }
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    /// [`ToolCall::id`]
    pub call_id: String,
    /// The result, or why there is none.
    pub text: String,
    pub image: Option<Image>,
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSpec {
    pub name: String,
    /// What it does and when to call it, for the model.
    pub description: String,
    /// The JSON Schema of its arguments, whose type is `object`.
    pub parameters: serde_json::Value,
}

impl ToolSpec {
    fn bytes(&self) -> usize {
        self.name.len() + self.description.len() + self.parameters.to_string().len()
    }
}

/// A JPEG or PNG.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    media_type: &'static str,
    data: Bytes,
}

impl Image {
    /// An image, told by its first bytes.
    pub fn new(data: Bytes) -> Result<Self, ImageError> {
        let media_type = match &data[..] {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => "image/png",
            [0xff, 0xd8, 0xff, ..] => "image/jpeg",
            _ => return Err(ImageError::Format),
        };
        match data.len() {
            ..=MAX_IMAGE_BYTES => Ok(Self { media_type, data }),
            _ => Err(ImageError::TooLarge),
        }
    }

    pub fn media_type(&self) -> &'static str {
        self.media_type
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.media_type, self.data.len())
    }
}

/// Why bytes are no image that models take.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    #[error("the image is neither JPEG nor PNG")]
    Format,
    #[error("the image has more than {MAX_IMAGE_BYTES} bytes")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn called(id: &str) -> ChatMessage {
        let call = ToolCall { id: id.into(), name: "moon".into(), arguments: json!({}), signature: None };
        ChatMessage::Assistant { text: String::new(), tool_calls: vec![call] }
    }

    fn result(id: &str, text: &str) -> ChatMessage {
        ChatMessage::ToolResult(ToolResult { call_id: id.into(), text: text.into(), image: None })
    }

    #[test]
    fn a_long_conversation_is_cut_to_its_newest_turns() {
        let messages = vec![
            ChatMessage::user("one"),
            ChatMessage::assistant("two"),
            ChatMessage::user("three"),
            ChatMessage::assistant("four"),
            ChatMessage::user("five"),
        ];
        let prompt = Prompt::new("", messages);

        assert_eq!(prompt.recent(100), &prompt.messages[..]);
        assert_eq!(prompt.recent(16), &prompt.messages[2..]);
        assert_eq!(prompt.recent(8), &prompt.messages[4..]);
        assert_eq!(prompt.recent(0), &prompt.messages[4..]);
        assert!(Prompt::default().recent(10).is_empty());
    }

    #[test]
    fn a_long_result_does_not_cut_its_call_and_its_question_off() {
        let turn = vec![ChatMessage::user("Where is it?"), called("a"), result("a", &"x".repeat(1000))];
        let prompt =
            Prompt::new("", [vec![ChatMessage::user("Hi."), ChatMessage::assistant("Hi.")], turn].concat());

        assert_eq!(prompt.recent(100), &prompt.messages[2..]);
    }

    proptest! {
        #[test]
        fn no_result_is_ever_without_its_call(
            turns in prop::collection::vec(prop::collection::vec(1..200usize, 0..4), 1..6),
            bytes in 0..1500usize,
        ) {
            let messages = turns.iter().enumerate().flat_map(|(turn, results)| {
                let steps = results.iter().enumerate().flat_map(move |(step, length)| {
                    let id = format!("{turn}-{step}");
                    [called(&id), result(&id, &"x".repeat(*length))]
                });
                [ChatMessage::user("Well?")].into_iter().chain(steps)
            });
            let prompt = Prompt::new("", messages.collect());

            let recent = prompt.recent(bytes);

            let mut calls = Vec::new();
            for message in recent {
                match message {
                    ChatMessage::User { .. } => {}
                    ChatMessage::Assistant { tool_calls, .. } => calls.extend(tool_calls.iter().map(|call| &call.id)),
                    ChatMessage::ToolResult(result) => prop_assert!(calls.contains(&&result.call_id)),
                }
            }
            let begins_with_the_user = matches!(recent.first(), Some(ChatMessage::User { .. }));
            prop_assert!(begins_with_the_user);
        }
    }

    #[test]
    fn images_are_told_by_their_first_bytes_and_limited() {
        let jpeg = |bytes: usize| {
            let mut data = vec![0xff, 0xd8, 0xff, 0xe0];
            data.resize(bytes, 0);
            Image::new(data.into())
        };

        assert_eq!(jpeg(MAX_IMAGE_BYTES).unwrap().media_type(), "image/jpeg");
        assert_eq!(jpeg(MAX_IMAGE_BYTES + 1), Err(ImageError::TooLarge));
        assert_eq!(
            Image::new(Bytes::from_static(b"\x89PNG\r\n\x1a\n...")).unwrap().media_type(),
            "image/png"
        );
        for data in [&b"GIF89a"[..], b"", b"<svg/>", b"\xff\xd8"] {
            assert_eq!(Image::new(Bytes::from_static(data)), Err(ImageError::Format));
        }
    }
}
