//! June's TTS service in two versions.

use serde_json::{Value, json};

use super::{KEY, Refusal, Request, http::Sound};

/// Of XTTS-v2.
const LANGUAGES: [&str; 17] =
    ["ar", "cs", "de", "en", "es", "fr", "hi", "hu", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh-cn"];

pub(super) fn check(request: &Request) -> Result<Sound, Refusal> {
    match request.path.as_str() {
        "/synthesize-binary" => wav(request),
        // As JSON with Base64; nothing that is tested asks for it.
        "/synthesize" => Err((500, refusal("asked for /synthesize where there is /synthesize-binary"))),
        _ => Err((404, refusal("Not Found"))),
    }
}

pub(super) fn check_later(request: &Request) -> Result<Sound, Refusal> {
    match request.path.as_str() {
        "/synthesize" => wav(request),
        _ => Err((404, refusal("Not Found"))),
    }
}

fn wav(request: &Request) -> Result<Sound, Refusal> {
    if request.method != "POST" {
        return Err((405, refusal("Method Not Allowed")));
    }
    if request.header("authorization") != format!("Bearer {KEY}") {
        return Err((401, refusal("Invalid service token")));
    }
    let Some(text) = request.text("text") else {
        let detail = json!([{ "type": "missing", "loc": ["body", "text"], "msg": "Field required" }]);
        return Err((422, json!({ "detail": detail })));
    };
    if !LANGUAGES.contains(&request.text("language").unwrap_or("en")) {
        return Err((500, refusal("Language is not supported")));
    }
    Ok(Sound::wav(text))
}

pub(super) fn refusal(message: &str) -> Value {
    json!({ "detail": message })
}
