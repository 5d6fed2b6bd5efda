//! The wire of the control channel: plain data and its encoding, no IO.
//!
//! Text frames are JSON objects with a `type`; binary frames are audio with a 16-byte header, up
//! ([`audio::Up`]) and down ([`audio::Down`]). docs/PROTOCOL.md shows every message by an example,
//! and those examples are the fixtures of the tests below.

pub mod asyncapi;
pub mod edge_v1;
#[cfg(test)]
mod fuzz;
pub mod mentra;

use serde::{Deserialize, Serialize};

pub use edge_v1::{
    from_client::{ClientMessage, FromClient},
    to_client::ToClient,
};

/// The name of this protocol, as `Sec-WebSocket-Protocol` and in `connection_init`.
pub const EDGE_V1: &str = "edge.v1";

/// How messages are written and read on a channel. The session behind it is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// Our own protocol: docs/PROTOCOL.md.
    #[default]
    #[serde(rename = "edge.v1")]
    EdgeV1,
    /// What MentraOS' phones and glasses speak: docs/MENTRA.md.
    #[serde(rename = "mentra")]
    Mentra,
}

/// The largest text frame a client may send, in bytes.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The largest binary frame a client may send, in bytes, header included.
pub const MAX_BINARY_BYTES: usize = 64 * 1024;

/// Why a frame could not be read. The connection goes on; the client gets an `error` message.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON, not an object, or a field of the wrong kind.
    #[error("not a message of this protocol: {0}")]
    Json(String),
    /// An object without a `type`.
    #[error("a message needs a \"type\"")]
    NoType,
    /// A binary frame too short for its header, or with another magic byte or version.
    #[error("not an audio frame: {0}")]
    Header(&'static str),
    /// A codec that was not agreed, or that this gateway does not decode.
    #[error("codec not supported: {0}")]
    Codec(&'static str),
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::error::Code;

    const PAGE: &str = include_str!("../../docs/PROTOCOL.md");

    /// The examples between two headings of the page.
    fn examples(from: &str, to: &str) -> Vec<Value> {
        let section = PAGE.split(from).nth(1).and_then(|rest| rest.split(to).next()).expect("both headings");
        section
            .split("```json")
            .skip(1)
            .map(|block| block.split("```").next().expect("a closed block"))
            .map(|example| serde_json::from_str(example).unwrap_or_else(|error| panic!("{error}: {example}")))
            .collect()
    }

    /// What clients say, as the page shows it.
    pub fn examples_of_clients() -> Vec<Value> {
        examples("## Client to gateway", "## Gateway to client")
    }

    /// What the gateway says.
    pub fn examples_of_the_gateway() -> Vec<Value> {
        examples("## Gateway to client", "## Error codes")
    }

    /// The names the decoder knows, from its own source.
    pub fn decoders_names() -> BTreeSet<&'static str> {
        include_str!("edge_v1/from_client.rs")
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"')?.split_once("=> FromClient::"))
            .map(|(name, _)| name.split('"').next().unwrap_or_default())
            .collect()
    }

    fn types(examples: &[Value]) -> BTreeSet<&str> {
        examples.iter().map(|example| example["type"].as_str().expect("a type")).collect()
    }

    #[test]
    fn every_example_of_a_client_is_read_and_says_the_same_when_it_is_written() {
        for example in examples_of_clients() {
            let said = ClientMessage::decode(&example.to_string())
                .unwrap_or_else(|error| panic!("{error}: {example}"));
            assert!(!matches!(said.message, FromClient::Other { .. }), "{example}");
            let written: Value = serde_json::from_str(&said.message.encode()).unwrap();
            for (field, value) in example.as_object().unwrap() {
                assert_eq!(&written[field], value, "{field} of {example}");
            }
        }
    }

    #[test]
    fn every_example_of_the_gateway_is_what_the_gateway_writes() {
        for example in examples_of_the_gateway() {
            let message: ToClient =
                serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{error}: {example}"));
            let seq = example["seq"].as_u64();
            assert_eq!(seq.is_some(), message.is_sequenced(), "seq of {example}");
            let written: Value = serde_json::from_str(&message.encode(seq)).unwrap();
            assert_eq!(written, example);
        }
    }

    /// For the gateway's own messages that is asyncapi's test: it knows them from their type.
    #[test]
    fn no_message_of_a_client_is_without_an_example() {
        assert_eq!(types(&examples_of_clients()), decoders_names());
    }

    #[test]
    fn every_error_code_is_explained_with_its_status() {
        let table = PAGE.split("## Error codes").nth(1).and_then(|rest| rest.split("## ").next()).unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        for row in &rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let code: Code = serde_json::from_value(Value::from(cells[1].trim_matches('`'))).unwrap();
            assert_eq!(cells[2], code.status().as_u16().to_string(), "{code}");
        }
        assert_eq!(rows.len(), 21);
    }
}
