//! Gemini's `streamGenerateContent`.

use serde_json::{Value, json};

use super::{
    Finish, KEY, LlmRequest, Protocol, Refused, USAGE, array, check_image, check_schema, refuse, text,
};

/// What the model wants back with the first call of a step.
const SIGNATURE: &str = "CiQB4/H/Xsignature==";

pub(super) struct GenerateContent;

impl Protocol for GenerateContent {
    fn check(&self, request: &LlmRequest) -> Result<(), Refused> {
        let model = request.path.strip_prefix("/v1beta/models/");
        let method = model.and_then(|model| model.split_once(':')).map(|(_, method)| method);
        if request.method != "POST" || method != Some("streamGenerateContent?alt=sse") {
            return refuse(404, "no such path");
        }
        if request.header("x-goog-api-key") != Some(KEY) {
            return refuse(400, "API key not valid. Please pass a valid API key.");
        }
        for tool in request.body.get("tools").and_then(Value::as_array).into_iter().flatten() {
            for function in array(tool, "functionDeclarations")? {
                text(function, "name")?;
                check_schema(function.get("parametersJsonSchema"))?;
            }
        }
        check_contents(array(&request.body, "contents")?)
    }

    fn refusal(&self, status: u16, message: &str) -> Value {
        let name = match status {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            429 => "RESOURCE_EXHAUSTED",
            503 => "UNAVAILABLE",
            _ => "INTERNAL",
        };
        json!({"error": {"code": status, "message": message, "status": name}})
    }

    fn begin(&mut self) -> String {
        String::new()
    }

    fn text(&mut self, text: &str) -> String {
        chunk(&json!([{"text": text}]), None)
    }

    fn reasoning(&mut self, text: &str) -> String {
        chunk(&json!([{"text": text, "thought": true}]), None)
    }

    fn tool_calls(&mut self, calls: &[(String, Value)]) -> String {
        let mut parts: Vec<_> = calls
            .iter()
            .map(|(name, arguments)| json!({"functionCall": {"name": name, "args": arguments}}))
            .collect();
        if let Some(first) = parts.first_mut() {
            first["thoughtSignature"] = SIGNATURE.into();
        }
        chunk(&parts.into(), None)
    }

    fn error(&mut self, status: u16, message: &str) -> String {
        event(&self.refusal(status, message))
    }

    fn finish(&mut self, finish: Finish) -> String {
        let reason = match finish {
            Finish::Stop | Finish::ToolCalls => "STOP",
            Finish::Length => "MAX_TOKENS",
            Finish::Filter => "SAFETY",
        };
        chunk(&json!([{"text": ""}]), Some(reason))
    }
}

fn chunk(parts: &Value, finish: Option<&str>) -> String {
    let (prompt, answer) = USAGE;
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if let Some(reason) = finish {
        candidate["finishReason"] = reason.into();
    }
    event(&json!({
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": prompt, "candidatesTokenCount": answer, "totalTokenCount": prompt + answer,
        },
        "modelVersion": "m",
        "responseId": "r1",
    }))
}

fn event(json: &Value) -> String {
    format!("data: {json}\r\n\r\n")
}

fn check_contents(contents: &[Value]) -> Result<(), Refused> {
    // Names of the functions that the last turn of the model called.
    let mut open: Vec<&str> = Vec::new();
    for content in contents {
        let role = text(content, "role")?;
        let parts = array(content, "parts")?;
        let responses: Vec<_> = parts.iter().filter_map(|part| part.get("functionResponse")).collect();
        if responses.len() != open.len() {
            return refuse(
                400,
                "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.",
            );
        }
        for (response, name) in responses.iter().zip(&open) {
            if text(response, "name")? != *name || !response["response"].is_object() {
                return refuse(400, "a function response must have the name of its call and an object");
            }
        }
        open.clear();
        for part in parts {
            if let Some(call) = part.get("functionCall") {
                if role != "model" || !call["args"].is_object() {
                    return refuse(400, "a function call is the model's and has arguments");
                }
                if open.is_empty() && part["thoughtSignature"] != SIGNATURE {
                    return refuse(
                        400,
                        "Function call is missing a thought_signature in functionCall parts.",
                    );
                }
                open.push(text(call, "name")?);
            } else if let Some(image) = part.get("inlineData").or_else(|| part.get("inline_data")) {
                let media_type = image.get("mimeType").or_else(|| image.get("mime_type"));
                check_image(media_type.and_then(Value::as_str).unwrap_or_default(), text(image, "data")?)?;
            } else if part.get("functionResponse").is_none() {
                text(part, "text")?;
            }
        }
        if !matches!(role, "user" | "model") {
            return refuse(400, "Please use a valid role: user, model.");
        }
    }
    if open.is_empty() { Ok(()) } else { refuse(400, "the last function calls have no responses") }
}
