//! `POST /v1/speak`, by Deepgram's API reference.

use serde_json::{Value, json};

use super::{KEY, Refusal, Request, http::Sound};

const MAX_TEXT: usize = 2000;

pub(super) fn check(request: &Request) -> Result<Sound, Refusal> {
    if (request.method.as_str(), request.path.as_str()) != ("POST", "/v1/speak") {
        return Err((404, refusal("Not Found")));
    }
    let is_authorized = request
        .header("authorization")
        .split_once(' ')
        .is_some_and(|(scheme, key)| scheme.eq_ignore_ascii_case("token") && key == KEY);
    if !is_authorized {
        return Err((401, refusal("Invalid credentials.")));
    }
    // The defaults are MP3; this server makes PCM alone.
    for (name, value) in [("encoding", "linear16"), ("sample_rate", "24000"), ("container", "none")] {
        if request.parameter(name).is_none_or(|given| given.trim_end_matches(".0") != value) {
            return Err((400, refusal(&format!("Unsupported audio format: {name} is not {value}"))));
        }
    }
    if !request.parameter("model").unwrap_or("aura-asteria-en").starts_with("aura-") {
        return Err((400, refusal("No such model/language/tier combination found.")));
    }
    match request.text("text") {
        Some(text) if text.chars().count() > MAX_TEXT => Err((413, refusal("Input text exceeds maximum"))),
        Some(text) if !text.is_empty() => Ok(Sound::pcm(text, "audio/l16;rate=24000;channels=1")),
        _ => Err((400, refusal("Failed to deserialize JSON payload. Please specify exactly one of `text`"))),
    }
}

pub(super) fn refusal(message: &str) -> Value {
    json!({
        "err_code": "Bad Request",
        "err_msg": message,
        "request_id": "5b4d9a2e-0000-4000-8000-000000000000",
    })
}
