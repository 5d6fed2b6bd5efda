//! The control channel as an AsyncAPI 3.0 document: docs/PROTOCOL.md for machines.
//!
//! The schemas are derived from the types that the gateway reads and writes, so no field is missing. A client's
//! messages are described as they are deserialized, the gateway's as they are serialized. Unknown fields are ignored on
//! both sides, so no schema forbids them. Every object has a title, by which code generators name their types.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::protocol::{
    EDGE_V1, MAX_BINARY_BYTES, MAX_TEXT_BYTES, ToClient,
    edge_v1::{audio, from_client},
};

/// The version of AsyncAPI that the document is in.
const ASYNCAPI: &str = "3.0.0";

/// The gateway's messages without a `seq` (`ToClient::is_sequenced`).
const UNNUMBERED: [&str; 12] = [
    "connection_ack",
    "connection_error",
    "auth_error",
    "control_token",
    "token_expiring",
    "token_renewed",
    "session_configured",
    "pong",
    "livekit_info",
    "participants:update",
    "session_end",
    "error",
];

/// The document without the gateway's address.
fn document() -> Value {
    let (mut schemas, mut said, mut told) = (Map::new(), clients_messages(), gateways_messages());
    for side in [&mut said, &mut told] {
        schemas.append(&mut side.schemas);
    }
    let (said, told) = (said.messages, told.messages);
    let names = |messages: &[Message]| {
        messages.iter().map(|message| reference(&["channels", "control", "messages", &message.key])).collect()
    };
    let (receive, send): (Value, Value) = (names(&said), names(&told));
    let messages = || said.iter().chain(&told);
    json!({
        "asyncapi": ASYNCAPI,
        "info": {
            "title": format!("June Edge, {EDGE_V1}"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "The control channel of a June Edge gateway. A text frame is a JSON object with a `type`, of at most \
                 {MAX_TEXT_BYTES} bytes; a binary frame is audio behind a {}-byte header, of at most {MAX_BINARY_BYTES} \
                 bytes. Unknown fields are ignored.",
                audio::HEADER_BYTES,
            ),
        },
        "defaultContentType": "application/json",
        "channels": {
            "control": {
                "address": "/v1/ws",
                "title": "Control channel",
                "description": "A session outlives its connections: a client that reconnects within the grace resumes it.",
                "messages": messages()
                    .map(|message| (message.key.clone(), reference(&["components", "messages", &message.key])))
                    .collect::<Map<_, _>>(),
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "query": {
                            "type": "object",
                            "properties": { "token": { "type": "string", "description": "For clients that cannot set headers." } },
                        },
                        "headers": {
                            "type": "object",
                            "properties": {
                                "Authorization": { "type": "string", "description": "`Bearer` and a token." },
                                "Sec-WebSocket-Protocol": { "type": "string", "const": EDGE_V1 },
                            },
                        },
                        "bindingVersion": "0.1.0",
                    },
                },
            },
        },
        "operations": {
            "hear": {
                "action": "receive",
                "channel": reference(&["channels", "control"]),
                "title": "Client to gateway",
                "messages": receive,
            },
            "tell": {
                "action": "send",
                "channel": reference(&["channels", "control"]),
                "title": "Gateway to client",
                "messages": send,
            },
        },
        "components": {
            "messages": messages().map(|message| (message.key.clone(), message.describe())).collect::<Map<_, _>>(),
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "query": { "type": "httpApiKey", "in": "query", "name": "token" },
            },
        },
    })
}

/// The document of a gateway whose control channel is at `url`, `wss://host/…`.
pub(crate) fn document_of(url: &str) -> Value {
    let mut document = document();
    let (protocol, rest) = url.split_once("://").unwrap_or(("ws", url));
    let host = rest.split('/').next().unwrap_or_default();
    let scheme = |name| reference(&["components", "securitySchemes", name]);
    document["servers"] = json!({
        "gateway": { "host": host, "protocol": protocol, "security": [scheme("bearer"), scheme("query")] },
    });
    document
}

/// What one side sends.
struct Side {
    messages: Vec<Message>,
    /// The types of the messages and of their fields, by name.
    schemas: Map<String, Value>,
}

/// A message of the document.
struct Message {
    /// Its name within the document: its side and its type, because both sides send some types. It has no colons.
    key: String,
    /// Its `type`; for a binary frame, what it is.
    name: String,
    summary: Option<String>,
    content_type: &'static str,
    payload: Value,
}

impl Message {
    fn json(side: &str, name: &str, summary: Option<String>) -> Self {
        let payload = reference(&["components", "schemas", &type_name(side, name)]);
        let (key, name) = (format!("{side}.{}", name.replace(':', "-")), name.to_owned());
        Self { key, name, summary, content_type: "application/json", payload }
    }

    fn binary(side: &str, name: &str, summary: &str, layout: &str) -> Self {
        Self {
            key: format!("{side}.{name}"),
            name: name.to_owned(),
            summary: Some(summary.to_owned()),
            content_type: "application/octet-stream",
            payload: json!({ "type": "string", "format": "binary", "description": layout }),
        }
    }

    fn describe(&self) -> Value {
        let mut message =
            json!({ "name": self.name, "contentType": self.content_type, "payload": self.payload });
        if let Some(summary) = &self.summary {
            message["summary"] = summary.as_str().into();
        }
        message
    }
}

/// The type of a message: `ClientPing`, `GatewayConnectionAck`.
fn type_name(side: &str, name: &str) -> String {
    let words = std::iter::once(side).chain(name.split(['_', ':']));
    let capitalized = |word: &str| word[..1].to_uppercase() + &word[1..];
    words.map(capitalized).collect()
}

/// The clients' messages, as they are deserialized.
fn clients_messages() -> Side {
    let mut generator = settings().for_deserialize().into_generator();
    let generator = &mut generator;
    let described = [
        (
            "connection_init",
            "Who calls, what it can do, and where to go on.",
            fields::<from_client::ConnectionInit>(generator),
        ),
        (
            "ping",
            "Answered with `pong` ahead of everything that is queued.",
            fields::<from_client::Ping>(generator),
        ),
        ("pong", "A sign of life.", nothing()),
        (
            "renew_token",
            "Asks for a fresh control token, or brings a fresh token of the client's own.",
            fields::<from_client::RenewToken>(generator),
        ),
        (
            "configure_session",
            "Changes options of the session.",
            fields::<from_client::ConfigureSession>(generator),
        ),
        ("VAD", "The client's own voice detection opened or closed.", fields::<from_client::Vad>(generator)),
        (
            "microphone_state_ack",
            "The client did as `microphone_state_change` asked.",
            fields::<from_client::MicrophoneStateAck>(generator),
        ),
        ("livekit_init", "Asks for a fresh LiveKit token.", fields::<from_client::LivekitInit>(generator)),
        (
            "audio_config",
            "How binary frames are packed from now on.",
            fields::<from_client::AudioConfig>(generator),
        ),
        (
            "phone_subscription_update",
            "The whole set of streams that the client wants.",
            fields::<from_client::Subscriptions>(generator),
        ),
        (
            "local_transcription",
            "What the client transcribed by itself.",
            fields::<from_client::LocalTranscription>(generator),
        ),
        (
            "glasses_connection_state",
            "The glasses behind a phone came or went.",
            fields::<from_client::GlassesConnectionState>(generator),
        ),
        (
            "audio_play_response",
            "A file that was to be played was, or could not be.",
            fields::<from_client::AudioPlayResponse>(generator),
        ),
        ("resume_ack", "Everything up to here arrived.", fields::<from_client::ResumeAck>(generator)),
        ("goodbye", "Ends the session now, without grace.", nothing()),
        ("playhead", "How much of the spoken answer was played.", fields::<from_client::Playhead>(generator)),
        ("interrupt", "Stop answering.", fields::<from_client::Interrupt>(generator)),
        ("say", "A typed turn.", fields::<from_client::Say>(generator)),
        ("tool_result", "What a tool of the client answered.", fields::<from_client::ToolResult>(generator)),
        (
            "subscribe:participants",
            "Push who is in a room.",
            fields::<from_client::ParticipantsOf>(generator),
        ),
        ("unsubscribe:participants", "Stop pushing.", fields::<from_client::ParticipantsOf>(generator)),
    ];
    let mut schemas = definitions(generator);
    let mut messages = Vec::new();
    for (name, summary, fields) in described {
        let fields = message(name, fields, ("id", request_id()), false);
        schemas.insert(type_name("client", name), titled(&type_name("client", name), fields));
        messages.push(Message::json("client", name, Some(summary.to_owned())));
    }
    let layout = "16 bytes, numbers big-endian: `0xE1`; version, 1; codec, 0 pcm16le or 2 opus; flags, 1 pre-roll, 2 back-fill, \
                  4 end; u32, sequence number of the frame in the session; u64, capture time in milliseconds. Then samples, \
                  little-endian, 16 kHz mono unless `audio_config` said otherwise; or an Opus packet.";
    messages.push(Message::binary("client", "sound", "The microphone.", layout));
    Side { messages, schemas }
}

/// The gateway's messages, as they are serialized: each variant of [`ToClient`].
fn gateways_messages() -> Side {
    let mut generator = settings().for_serialize().into_generator();
    let schema = fields::<ToClient>(&mut generator);
    let variants = schema.get("oneOf").and_then(Value::as_array).cloned().expect("an enum has variants");
    let mut schemas = definitions(&mut generator);
    let mut messages = Vec::new();
    for variant in variants {
        let mut variant = flattened(variant, &schemas);
        let name = variant["properties"]["type"]["const"].as_str().expect("each has a type").to_owned();
        let summary = variant.as_object_mut().and_then(|variant| variant.remove("description"));
        let summary = summary.and_then(|summary| summary.as_str().map(str::to_owned));
        let fields = if UNNUMBERED.contains(&name.as_str()) {
            variant
        } else {
            message(&name, variant, ("seq", sequence_number()), true)
        };
        schemas.insert(type_name("gateway", &name), titled(&type_name("gateway", &name), fields));
        messages.push(Message::json("gateway", &name, summary));
    }
    let layout = "16 bytes, numbers big-endian: `0xE2`; version, 1; codec, 0 pcm16le, 2 opus; flags, 4 end; u32, generation; \
                  u64, position in samples since `speech_begin`. Then 20 or 60 ms: of PCM, samples, little-endian, less in the \
                  last frame; of Opus, a packet, and before that of the last frame a u16, the samples at its end that are padding.";
    messages.push(Message::binary("gateway", "sound", "The spoken answer.", layout));
    Side { schemas: only_used(schemas, &messages), messages }
}

/// Schemas of draft 7, of which AsyncAPI's are a superset.
fn settings() -> SchemaSettings {
    SchemaSettings::draft07().with(|settings| {
        settings.meta_schema = None;
        settings.definitions_path = "/components/schemas".into();
    })
}

/// The schema of a type, with references to the types of its fields.
fn fields<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema: Schema = generator.root_schema_for::<T>();
    schema.remove("title");
    schema.remove("components");
    schema.to_value()
}

/// The types that schemas of this generator refer to, by name.
fn definitions(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let definitions = generator.take_definitions(true);
    definitions.into_iter().map(|(name, schema)| (name.clone(), titled(&name, schema))).collect()
}

/// A schema with a title for it and, if it is an enum, for each variant with fields. Generators name types by titles.
fn titled(title: &str, mut schema: Value) -> Value {
    schema["title"] = title.into();
    for variant in schema.get_mut("oneOf").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = variant["properties"]["type"]["const"].as_str().map(str::to_owned) {
            variant["title"] = type_name(title, &name).into();
        }
    }
    schema
}

/// Puts the fields of the type that a variant wraps into the variant itself.
fn flattened(mut variant: Value, schemas: &Map<String, Value>) -> Value {
    let Some(wrapped) = variant.as_object_mut().and_then(|variant| variant.remove("allOf")) else {
        return variant;
    };
    let name = wrapped[0]["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    let wrapped = name.and_then(|name| schemas.get(name)).expect("a variant wraps a type with a definition");
    let fields = wrapped["properties"].as_object().expect("it has fields").clone();
    variant["properties"].as_object_mut().expect("a variant has a type").extend(fields);
    let required = wrapped["required"].as_array().expect("some are required").clone();
    variant["required"].as_array_mut().expect("its type is required").extend(required);
    variant
}

/// Leaves out types that nothing refers to.
fn only_used(mut schemas: Map<String, Value>, messages: &[Message]) -> Map<String, Value> {
    loop {
        let text = Value::from(schemas.clone()).to_string();
        let is_used = |name: &str| {
            let reference = format!("#/components/schemas/{name}");
            text.contains(&format!("\"{reference}\""))
                || messages.iter().any(|message| message.payload["$ref"] == *reference)
        };
        let before = schemas.len();
        schemas.retain(|name, _| is_used(name));
        if schemas.len() == before {
            return schemas;
        }
    }
}

/// The schema of a message without fields.
fn nothing() -> Value {
    json!({ "type": "object" })
}

/// A message's schema: its `type`, the field that every message of its side has, and its own fields.
fn message(name: &str, mut schema: Value, (common, value): (&str, Value), required: bool) -> Value {
    let schema_of = schema.as_object_mut().expect("a message is an object");
    // It is of the Rust type; the message has a summary.
    schema_of.remove("description");
    let own = schema_of.remove("properties").unwrap_or_else(|| json!({}));
    let mut properties = json!({ "type": { "type": "string", "const": name } });
    properties[common] = value;
    if let (Some(properties), Value::Object(own)) = (properties.as_object_mut(), own) {
        properties.extend(own);
    }
    let mut needed = vec![json!("type")];
    needed.extend(required.then(|| json!(common)));
    let own = schema_of.remove("required").and_then(|own| own.as_array().cloned()).unwrap_or_default();
    needed.extend(own.into_iter().filter(|field| *field != "type"));
    schema["properties"] = properties;
    schema["required"] = needed.into();
    schema
}

fn request_id() -> Value {
    json!({ "type": ["string", "number"], "description": "An `error` about this message has it as `replyTo`." })
}

fn sequence_number() -> Value {
    json!({
        "type": "integer", "format": "uint64", "minimum": 1,
        "description": "The message's number in the session's sequence.",
    })
}

fn reference(path: &[&str]) -> Value {
    json!({ "$ref": format!("#/{}", path.join("/")) })
}

#[cfg(test)]
mod tests;
