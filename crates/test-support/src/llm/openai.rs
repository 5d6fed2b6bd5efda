//! OpenAI's chat completions, and Ollama's.

use serde_json::{Value, json};

use super::{
    Finish, KEY, LlmApi, LlmRequest, Protocol, Refused, USAGE, array, check_image, check_schema, pieces,
    refuse, text,
};

pub(super) struct ChatCompletions {
    is_ollama: bool,
    includes_usage: bool,
    calls: usize,
}

impl ChatCompletions {
    pub(super) fn new(api: LlmApi, request: &LlmRequest) -> Self {
        let includes_usage = request.body["stream_options"]["include_usage"] == true;
        Self { is_ollama: api == LlmApi::Ollama, includes_usage, calls: 0 }
    }

    fn chunk(&self, choices: &Value, usage: Option<Value>) -> String {
        let fingerprint = if self.is_ollama { "fp_ollama" } else { "fp_44709d6fcb" };
        let mut chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_764_000_000, "model": "m",
            "system_fingerprint": fingerprint, "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    }

    fn delta(&self, delta: &Value) -> String {
        self.chunk(&json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]), None)
    }
}

impl Protocol for ChatCompletions {
    fn check(&self, request: &LlmRequest) -> Result<(), Refused> {
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/v1/chat/completions") {
            return refuse(404, "no such path");
        }
        if !self.is_ollama && request.header("authorization") != Some(&format!("Bearer {KEY}")) {
            let key = request.header("authorization").unwrap_or_default().trim_start_matches("Bearer ");
            return refuse(401, format!("Incorrect API key provided: {key}."));
        }
        let body = &request.body;
        text(body, "model")?;
        if body["stream"] != true {
            return refuse(400, "this server only streams");
        }
        for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
            if tool["type"] != "function" {
                return refuse(400, "tools: the type must be function");
            }
            text(&tool["function"], "name")?;
            check_schema(tool["function"].get("parameters"))?;
        }
        check_messages(array(body, "messages")?)
    }

    fn refusal(&self, status: u16, message: &str) -> Value {
        if self.is_ollama {
            let kind = match status {
                400 => "invalid_request_error",
                404 => "not_found_error",
                _ => "api_error",
            };
            return json!({"error": {"message": message, "type": kind, "param": null, "code": null}});
        }
        let (kind, code) = match status {
            401 => ("invalid_request_error", Some("invalid_api_key")),
            429 => ("requests", Some("rate_limit_exceeded")),
            500.. => ("server_error", None),
            _ => ("invalid_request_error", None),
        };
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
    }

    fn begin(&mut self) -> String {
        match self.is_ollama {
            true => String::new(),
            false => self.delta(&json!({"role": "assistant", "content": "", "refusal": null})),
        }
    }

    fn text(&mut self, text: &str) -> String {
        self.delta(&json!({"content": text}))
    }

    fn reasoning(&mut self, text: &str) -> String {
        match self.is_ollama {
            true => self.delta(&json!({"content": "", "reasoning": text})),
            // Not OpenAI's, but that of vLLM, DeepSeek and others.
            false => self.delta(&json!({"reasoning_content": text})),
        }
    }

    /// OpenAI's in pieces, which are mixed; Ollama's whole.
    fn tool_calls(&mut self, calls: &[(String, Value)]) -> String {
        let first = self.calls;
        self.calls += calls.len();
        let head = |(index, (name, _)): (usize, &(String, Value)), arguments: &str| {
            json!({
                "index": first + index, "id": format!("call_{}{name}", first + index), "type": "function",
                "function": {"name": name, "arguments": arguments},
            })
        };
        if self.is_ollama {
            let whole: Vec<_> =
                calls.iter().enumerate().map(|call| head(call, &call.1.1.to_string())).collect();
            return self.delta(&json!({"content": "", "tool_calls": whole}));
        }
        let mut chunks: String = calls
            .iter()
            .enumerate()
            .map(|call| self.delta(&json!({"tool_calls": [head(call, "")]})))
            .collect();
        for piece in 0..3 {
            for (index, (_, arguments)) in calls.iter().enumerate() {
                let arguments = arguments.to_string();
                let piece = pieces(&arguments)[piece];
                let call = json!({"index": first + index, "function": {"arguments": piece}});
                chunks += &self.delta(&json!({"tool_calls": [call]}));
            }
        }
        chunks
    }

    fn error(&mut self, status: u16, message: &str) -> String {
        match self.is_ollama {
            // The error is lost: `streamResponse` writes `{"error":…}`, of which `ChatWriter` makes an empty chunk.
            true => self.delta(&json!({"content": ""})),
            false => format!("data: {}\n\n", self.refusal(status, message)),
        }
    }

    fn finish(&mut self, finish: Finish) -> String {
        let reason = match finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
            Finish::Filter => "content_filter",
        };
        let mut last =
            self.chunk(&json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": reason}]), None);
        if self.includes_usage {
            let (prompt, completion) = USAGE;
            let usage = json!({
                "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            });
            last += &self.chunk(&json!([]), Some(usage));
        }
        last + "data: [DONE]\n\n"
    }
}

fn check_messages(messages: &[Value]) -> Result<(), Refused> {
    // Ids of calls that have no result yet.
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        let role = text(message, "role")?;
        if role == "tool" {
            let id = text(message, "tool_call_id")?;
            let Some(at) = open.iter().position(|open| *open == id) else {
                return refuse(
                    400,
                    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
                );
            };
            open.remove(at);
            check_content(message)?;
            continue;
        }
        if !open.is_empty() {
            return refuse(
                400,
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'.",
            );
        }
        match role {
            "system" | "user" => check_content(message)?,
            "assistant" => match message.get("tool_calls") {
                None => check_content(message)?,
                Some(_) => {
                    for call in array(message, "tool_calls")? {
                        let arguments = text(&call["function"], "arguments")?;
                        text(&call["function"], "name")?;
                        if !serde_json::from_str::<Value>(arguments)
                            .is_ok_and(|arguments| arguments.is_object())
                        {
                            return refuse(400, "arguments: a JSON object is required");
                        }
                        open.push(text(call, "id")?);
                    }
                }
            },
            _ => return refuse(400, format!("no role {role}")),
        }
    }
    if open.is_empty() { Ok(()) } else { refuse(400, "the last tool calls have no results") }
}

fn check_content(message: &Value) -> Result<(), Refused> {
    if message["content"].is_string() {
        return Ok(());
    }
    array(message, "content")?.iter().try_for_each(|part| match part["type"].as_str() {
        Some("text") => text(part, "text").map(|_| ()),
        Some("image_url") => {
            let url = text(&part["image_url"], "url")?;
            match url.strip_prefix("data:").and_then(|url| url.split_once(";base64,")) {
                Some((media_type, data)) => check_image(media_type, data),
                None => refuse(400, "the image is no data URL"),
            }
        }
        _ => refuse(400, "no such part"),
    })
}
