//! The control channel as an AsyncAPI 3.0 document, for machines: what docs/PROTOCOL.md is for people.
//!
//! The messages' schemas are derived from the types that the gateway reads and writes, so a field cannot
//! be forgotten here. What a client sends is described as it is read, what the gateway sends as it is
//! written. Unknown fields are ignored on both sides, so no schema forbids them.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::protocol::{
    EDGE_V1, MAX_BINARY_BYTES, MAX_TEXT_BYTES, ToClient,
    edge_v1::{audio, from_client},
};

/// The version of AsyncAPI that the document is in.
const ASYNCAPI: &str = "3.0.0";

/// What the gateway says without a `seq` (`ToClient::is_sequenced`).
const UNNUMBERED: [&str; 11] = [
    "connection_ack",
    "connection_error",
    "auth_error",
    "control_token",
    "token_expiring",
    "token_renewed",
    "pong",
    "livekit_info",
    "participants:update",
    "session_end",
    "error",
];

/// The whole document, but for where the gateway is.
pub fn document() -> Value {
    let (said, told) = (said_by_clients(), told_by_the_gateway());
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
                 {MAX_TEXT_BYTES} bytes; a binary frame is sound behind a {}-byte header, of at most {MAX_BINARY_BYTES} \
                 bytes. Unknown fields are ignored.",
                audio::HEADER_BYTES,
            ),
        },
        "defaultContentType": "application/json",
        "channels": {
            "control": {
                "address": "/v1/ws",
                "title": "The control channel",
                "description": "A session of a user outlives the connection: who comes back within the grace goes on in it.",
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
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "query": { "type": "httpApiKey", "in": "query", "name": "token" },
            },
        },
    })
}

/// The document of a gateway that clients reach at `url`, `wss://host/…`.
pub fn document_of(url: &str) -> Value {
    let mut document = document();
    let (protocol, rest) = url.split_once("://").unwrap_or(("ws", url));
    let host = rest.split('/').next().unwrap_or_default();
    let scheme = |name| reference(&["components", "securitySchemes", name]);
    document["servers"] = json!({
        "gateway": { "host": host, "protocol": protocol, "security": [scheme("bearer"), scheme("query")] },
    });
    document
}

/// A message of the document.
struct Message {
    /// Its name within the document. Some types are said by both sides, and a key has no colons.
    key: String,
    /// Its `type`; of a binary frame, what it is.
    name: String,
    summary: Option<String>,
    content_type: &'static str,
    payload: Value,
}

impl Message {
    fn json(side: &str, name: &str, summary: Option<String>, payload: Value) -> Self {
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

/// What clients say, as it is read.
fn said_by_clients() -> Vec<Message> {
    let mut generator = settings().for_deserialize().into_generator();
    let generator = &mut generator;
    let mut messages: Vec<Message> = [
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
        (
            "subscribe:participants",
            "Push who is in a room.",
            fields::<from_client::ParticipantsOf>(generator),
        ),
        ("unsubscribe:participants", "Stop pushing.", fields::<from_client::ParticipantsOf>(generator)),
    ]
    .into_iter()
    .map(|(name, summary, fields)| {
        let payload = message(name, fields, ("id", request_id()), false);
        Message::json("client", name, Some(summary.to_owned()), payload)
    })
    .collect();
    let layout = "16 bytes, numbers big-endian: `0xE1`; version, 1; codec, 0 pcm16le or 2 opus; flags, 1 pre-roll, 2 back-fill, \
                  4 end; u32, sequence number of the frame in the session; u64, capture time in milliseconds. Then samples, \
                  little-endian, 16 kHz mono unless `audio_config` said otherwise; or an Opus packet.";
    messages.push(Message::binary("client", "sound", "The microphone.", layout));
    messages
}

/// What the gateway says, as it is written: each variant of [`ToClient`].
fn told_by_the_gateway() -> Vec<Message> {
    let mut generator = settings().for_serialize().into_generator();
    let schema = fields::<ToClient>(&mut generator);
    let variants = schema.get("oneOf").and_then(Value::as_array).cloned().expect("an enum has variants");
    let mut messages: Vec<Message> = variants
        .into_iter()
        .map(|mut variant| {
            let name = variant["properties"]["type"]["const"].as_str().expect("each has a type").to_owned();
            let summary = variant.as_object_mut().and_then(|variant| variant.remove("description"));
            let summary = summary.and_then(|summary| summary.as_str().map(str::to_owned));
            let payload = if UNNUMBERED.contains(&name.as_str()) {
                variant
            } else {
                message(&name, variant, ("seq", sequence_number()), true)
            };
            Message::json("gateway", &name, summary, payload)
        })
        .collect();
    let layout = "16 bytes, numbers big-endian: `0xE2`; version, 1; codec, 0 pcm16le; flags, 4 end; u32, generation; \
                  u64, position in samples since `speech_begin`. Then 20 ms of samples, little-endian; less in the last frame.";
    messages.push(Message::binary("gateway", "sound", "The spoken answer.", layout));
    messages
}

/// Schemas of draft 7, which is what AsyncAPI's own are a superset of; each whole in itself.
fn settings() -> SchemaSettings {
    SchemaSettings::draft07().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    })
}

fn fields<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema: Schema = generator.root_schema_for::<T>();
    schema.remove("title");
    schema.to_value()
}

/// The fields of a message that has none.
fn nothing() -> Value {
    json!({ "type": "object" })
}

/// A message's schema: its `type`, what every message of its side has, and its own fields.
fn message(name: &str, mut schema: Value, (common, value): (&str, Value), required: bool) -> Value {
    let schema_of = schema.as_object_mut().expect("a message is an object");
    // It says what the type is, not what the message does.
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
    json!({ "type": ["string", "number"], "description": "An `error` about this message carries it as `replyTo`." })
}

fn sequence_number() -> Value {
    json!({
        "type": "integer", "format": "uint64", "minimum": 1,
        "description": "The message's place in the session's sequence.",
    })
}

fn reference(path: &[&str]) -> Value {
    json!({ "$ref": format!("#/{}", path.join("/")) })
}

#[cfg(test)]
mod tests;
