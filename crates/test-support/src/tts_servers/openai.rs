//! `POST /v1/audio/speech`, by OpenAI's API reference.

use serde_json::{Value, json};

use super::{KEY, Refusal, Request, http::Sound};

const FORMATS: [&str; 6] = ["mp3", "opus", "aac", "flac", "wav", "pcm"];
const MAX_INPUT: usize = 4096;

pub(super) fn check(request: &Request) -> Result<Sound, Refusal> {
    let (method, path) = (request.method.as_str(), request.path.as_str());
    if (method, path) != ("POST", "/v1/audio/speech") {
        return Err((404, refusal(&format!("Invalid URL ({method} {path})"))));
    }
    let authorization = request.header("authorization");
    if authorization != format!("Bearer {KEY}") {
        return Err((401, refusal(&format!("Incorrect API key provided: {authorization}"))));
    }
    for name in ["model", "input", "voice"] {
        if request.text(name).is_none_or(str::is_empty) {
            return Err((400, refusal(&format!("Missing required parameter: '{name}'."))));
        }
    }
    let input = request.text("input").unwrap_or_default();
    if input.chars().count() > MAX_INPUT {
        return Err((400, refusal("String should have at most 4096 characters")));
    }
    match request.text("response_format").unwrap_or("mp3") {
        "pcm" => Ok(Sound::pcm(input, "audio/pcm")),
        format if FORMATS.contains(&format) => Err((400, refusal("this server makes PCM alone"))),
        format => Err((400, refusal(&format!("Invalid value: '{format}'.")))),
    }
}

pub(super) fn refusal(message: &str) -> Value {
    json!({ "error": { "message": message, "type": "invalid_request_error", "param": null, "code": null } })
}
