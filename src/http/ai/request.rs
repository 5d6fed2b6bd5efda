//! What is asked.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    error::Code,
    http::error::ApiError,
    ids::UserId,
    language::Language,
    providers::llm::{Image, ImageError, MAX_IMAGE_BYTES},
    session::{MAX_TYPED_BYTES, question::Question},
};

/// The largest body with images, in bytes: one of the largest images, or some smaller ones.
pub(in crate::http) const MAX_BODY_WITH_IMAGES: usize = 6 * 1024 * 1024;

/// As many as one prompt has.
const MAX_IMAGES: usize = 4;

#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    /// June's clients send one of these.
    message: Option<String>,
    text: Option<String>,
    pub(super) session_id: Option<String>,
    /// Whose a new session is.
    pub(super) user_id: Option<UserId>,
    language: Option<String>,
    #[serde(default)]
    include_audio: bool,
    /// Base64, or `data:` URLs.
    #[serde(default)]
    images: Vec<String>,
    /// Those of a new session.
    pub(super) options: Option<Map<String, Value>>,
}

impl ChatRequest {
    /// The question, if the request is valid.
    pub(super) fn question(&self) -> Result<Question, ApiError> {
        let (name, text) = match (&self.message, &self.text) {
            (Some(message), None) => ("message", message),
            (None, Some(text)) => ("text", text),
            (None, None) => return Err(ApiError::invalid("message", "is missing")),
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid("message", "and text say the same: send one of them"));
            }
        };
        if text.trim().is_empty() || text.trim().len() > MAX_TYPED_BYTES {
            return Err(ApiError::invalid(name, format!("must have 1 to {MAX_TYPED_BYTES} bytes")));
        }
        if self.session_id.is_some() && self.options.is_some() {
            return Err(ApiError::invalid("options", "are for a new session, without session_id"));
        }
        let language = self.language.as_deref().map(Language::parse).transpose();
        if self.images.len() > MAX_IMAGES {
            return Err(ApiError::invalid("images", format!("must be at most {MAX_IMAGES}")));
        }
        Ok(Question {
            text: text.clone(),
            images: self.images.iter().map(|image| image_of(image)).collect::<Result<_, _>>()?,
            language: language.map_err(|error| ApiError::invalid("language", error))?,
            with_audio: self.include_audio,
        })
    }
}

/// An image as base64 (RFC 4648 §4), or as a `data:` URL (RFC 2397) whose type does not count: the first bytes do.
fn image_of(input: &str) -> Result<Image, ApiError> {
    let invalid = |problem: &str| ApiError::invalid("images", problem);
    let data = match input.strip_prefix("data:") {
        Some(url) => match url.split_once(',') {
            Some((head, data)) if head.to_ascii_lowercase().ends_with(";base64") => data,
            Some(_) | None => return Err(invalid("a data URL must have base64 data")),
        },
        None if input.starts_with("http:") || input.starts_with("https:") => {
            return Err(invalid("must be base64 or data URLs: the gateway fetches none"));
        }
        None => input,
    };
    if data.len() / 4 * 3 > MAX_IMAGE_BYTES + 3 {
        return Err(ApiError::new(Code::TooLarge, format!("images: {}", ImageError::TooLarge)));
    }
    let data = BASE64_STANDARD.decode(data).map_err(|_| invalid("must be valid base64"))?;
    Image::new(data.into()).map_err(|error| match error {
        ImageError::TooLarge => ApiError::new(Code::TooLarge, format!("images: {error}")),
        ImageError::Format => invalid(&error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n...";

    fn question(request: Value) -> Result<Question, ApiError> {
        serde_json::from_value::<ChatRequest>(request).unwrap().question()
    }

    fn refusal(request: Value) -> String {
        question(request).unwrap_err().to_string()
    }

    #[test]
    fn a_line_is_a_message_or_a_text_and_not_both() {
        for name in ["message", "text"] {
            assert_eq!(question(json!({name: "Hello"})).unwrap().text, "Hello");
            assert!(refusal(json!({name: " "})).contains(name));
            assert!(refusal(json!({name: "x".repeat(4_001)})).contains("4000"));
        }
        assert_eq!(refusal(json!({})), "INVALID_REQUEST: message: is missing");
        assert!(refusal(json!({"message": "a", "text": "a"})).contains("one of them"));
        assert!(refusal(json!({"message": "a", "language": "klingon!"})).contains("language"));
        assert!(refusal(json!({"message": "a", "session_id": "x", "options": {}})).contains("options"));
    }

    #[test]
    fn an_image_is_base64_or_a_data_url_and_told_by_its_first_bytes() {
        let encoded = BASE64_STANDARD.encode(PNG);
        for image in [encoded.clone(), format!("data:image/jpeg;base64,{encoded}")] {
            let question = question(json!({"message": "?", "images": [image]})).unwrap();
            assert_eq!(question.images[0].media_type(), "image/png");
        }
        let not_an_image = BASE64_STANDARD.encode("GIF89a");
        for image in [
            not_an_image.as_str(),
            "data:image/png,abc",
            "data:image/png;base64",
            "not base64!",
            "https://example.com/cat.png",
        ] {
            assert!(
                refusal(json!({"message": "?", "images": [image]})).starts_with("INVALID_REQUEST: images")
            );
        }
        assert!(refusal(json!({"message": "?", "images": vec![encoded; 5]})).contains("at most 4"));
    }

    #[test]
    fn an_image_that_is_too_large_is_refused() {
        let jpeg = |bytes: usize| {
            let mut data = vec![0xff, 0xd8, 0xff, 0xe0];
            data.resize(bytes, 0);
            json!({"message": "?", "images": [BASE64_STANDARD.encode(data)]})
        };

        assert!(question(jpeg(MAX_IMAGE_BYTES)).is_ok());
        assert!(refusal(jpeg(MAX_IMAGE_BYTES + 1)).starts_with("TOO_LARGE"));
        assert!(refusal(jpeg(MAX_IMAGE_BYTES + 100)).starts_with("TOO_LARGE"));
    }
}
