//! Anthropic's messages.

use serde_json::{Value, json};

use super::{
    Finish, KEY, LlmRequest, Protocol, Refused, USAGE, array, check_image, check_schema, pieces, refuse, text,
};

pub(super) struct Messages {
    model: Value,
    /// The kind of the block that is open.
    open: Option<&'static str>,
    /// Blocks so far, with the one that is open.
    blocks: usize,
}

impl Messages {
    pub(super) fn new(request: &LlmRequest) -> Self {
        Self { model: request.body["model"].clone(), open: None, blocks: 0 }
    }

    fn start(&mut self, kind: &'static str, block: &Value) -> String {
        let stop = self.stop();
        self.open = Some(kind);
        self.blocks += 1;
        stop + &event("content_block_start", &json!({"index": self.blocks - 1, "content_block": block}))
    }

    fn delta(&self, delta: &Value) -> String {
        event("content_block_delta", &json!({"index": self.blocks - 1, "delta": delta}))
    }

    fn stop(&mut self) -> String {
        match self.open.take() {
            None => String::new(),
            Some(kind) => {
                let signature = match kind {
                    "thinking" => self.delta(&json!({"type": "signature_delta", "signature": "c2ln"})),
                    _ => String::new(),
                };
                signature + &event("content_block_stop", &json!({"index": self.blocks - 1}))
            }
        }
    }
}

impl Protocol for Messages {
    fn check(&self, request: &LlmRequest) -> Result<(), Refused> {
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/v1/messages") {
            return refuse(404, "Not found");
        }
        if request.header("x-api-key") != Some(KEY) {
            return refuse(401, "invalid x-api-key");
        }
        if request.header("anthropic-version") != Some("2023-06-01") {
            return refuse(400, "anthropic-version: header is required");
        }
        let body = &request.body;
        text(body, "model")?;
        if body["max_tokens"].as_u64().unwrap_or(0) == 0 {
            return refuse(400, "max_tokens: Field required");
        }
        if body["stream"] != true {
            return refuse(400, "this server only streams");
        }
        for tool in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
            text(tool, "name")?;
            check_schema(tool.get("input_schema"))?;
        }
        check_messages(array(body, "messages")?)
    }

    fn refusal(&self, status: u16, message: &str) -> Value {
        let kind = match status {
            400 => "invalid_request_error",
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            529 => "overloaded_error",
            _ => "api_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
    }

    fn begin(&mut self) -> String {
        let message = json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": USAGE.0, "output_tokens": 1},
        });
        event("message_start", &json!({"message": message})) + &event("ping", &json!({}))
    }

    fn text(&mut self, text: &str) -> String {
        let start = match self.open {
            Some("text") => String::new(),
            _ => self.start("text", &json!({"type": "text", "text": ""})),
        };
        start + &self.delta(&json!({"type": "text_delta", "text": text}))
    }

    fn reasoning(&mut self, text: &str) -> String {
        let start = match self.open {
            Some("thinking") => String::new(),
            _ => self.start("thinking", &json!({"type": "thinking", "thinking": "", "signature": ""})),
        };
        start + &self.delta(&json!({"type": "thinking_delta", "thinking": text}))
    }

    fn tool_calls(&mut self, calls: &[(String, Value)]) -> String {
        let mut events = String::new();
        for (name, arguments) in calls {
            let id = format!("toolu_{}", self.blocks);
            events +=
                &self.start("tool_use", &json!({"type": "tool_use", "id": id, "name": name, "input": {}}));
            events += &self.delta(&json!({"type": "input_json_delta", "partial_json": ""}));
            for piece in pieces(&arguments.to_string()) {
                events += &self.delta(&json!({"type": "input_json_delta", "partial_json": piece}));
            }
        }
        events
    }

    fn error(&mut self, status: u16, message: &str) -> String {
        format!("event: error\ndata: {}\n\n", self.refusal(status, message))
    }

    fn finish(&mut self, finish: Finish) -> String {
        let reason = match finish {
            Finish::Stop => "end_turn",
            Finish::Length => "max_tokens",
            Finish::ToolCalls => "tool_use",
            Finish::Filter => "refusal",
        };
        let delta = json!({
            "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": USAGE.1},
        });
        self.stop() + &event("message_delta", &delta) + &event("message_stop", &json!({}))
    }
}

fn event(name: &str, fields: &Value) -> String {
    let mut data = json!({"type": name});
    for (field, value) in fields.as_object().into_iter().flatten() {
        data[field] = value.clone();
    }
    format!("event: {name}\ndata: {data}\n\n")
}

fn check_messages(messages: &[Value]) -> Result<(), Refused> {
    // Messages of one role after another count as one.
    let mut turns: Vec<(&str, Vec<&Value>)> = Vec::new();
    for message in messages {
        let role = text(message, "role")?;
        let blocks: Vec<&Value> = match message["content"].as_str() {
            Some(_) => text(message, "content").map(|_| Vec::new())?,
            None => array(message, "content")?.iter().collect(),
        };
        match turns.last_mut() {
            Some((last, turn)) if *last == role => turn.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    if turns.first().map(|(role, _)| *role) != Some("user") {
        return refuse(400, "messages: first message must use the \"user\" role");
    }
    let mut open: Vec<&str> = Vec::new();
    for (role, blocks) in &turns {
        let mut next = Vec::new();
        for block in blocks {
            match (block["type"].as_str().unwrap_or_default(), *role) {
                ("text", _) => {
                    text(block, "text")?;
                }
                ("image", "user") => {
                    check_image(text(&block["source"], "media_type")?, text(&block["source"], "data")?)?;
                }
                ("tool_use", "assistant") => {
                    text(block, "name")?;
                    if !block["input"].is_object() {
                        return refuse(400, "tool_use.input: Input should be a valid dictionary");
                    }
                    next.push(text(block, "id")?);
                }
                ("tool_result", "user") => {
                    let id = text(block, "tool_use_id")?;
                    match open.iter().position(|open| *open == id) {
                        Some(at) => open.remove(at),
                        None => {
                            return refuse(
                                400,
                                format!("unexpected `tool_use_id` found in `tool_result` blocks: {id}"),
                            );
                        }
                    };
                }
                (kind, role) => return refuse(400, format!("no {kind} in a message of the {role}")),
            }
        }
        if !open.is_empty() {
            return refuse(400, "`tool_use` ids were found without `tool_result` blocks immediately after");
        }
        open = next;
    }
    if open.is_empty() {
        Ok(())
    } else {
        refuse(400, "the last `tool_use` blocks have no `tool_result` blocks")
    }
}
