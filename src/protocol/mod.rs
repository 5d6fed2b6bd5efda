//! The wire of the control channel. The messages of `edge.v1` are in the crate `june-protocol`, which clients
//! share; here are the `mentra` profile and the AsyncAPI document.
//!
//! docs/PROTOCOL.md shows every message by an example. The examples are the fixtures of the tests below.

pub mod asyncapi;
#[cfg(test)]
pub(crate) mod fuzz;
pub(crate) mod mentra;

use serde::{Deserialize, Serialize};

pub use june_protocol::{
    ClientMessage, DecodeError, EDGE_V1, FromClient, InvalidOption, MAX_BINARY_BYTES, MAX_TEXT_BYTES, Mode,
    Participants, SessionOptions, ToClient, ToolDeclaration, ToolKind,
};

/// The messages and binary frames of `edge.v1`.
pub mod edge_v1 {
    pub use june_protocol::{audio, from_client, participants, to_client};
}

/// The encoding of messages on a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// docs/PROTOCOL.md.
    #[default]
    #[serde(rename = "edge.v1")]
    EdgeV1,
    /// The protocol of MentraOS clients: docs/MENTRA.md.
    #[serde(rename = "mentra")]
    Mentra,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::{error::Code, http::error::status, ids::Identity};

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

    /// The examples of clients' messages.
    pub fn examples_of_clients() -> Vec<Value> {
        examples("## Client to gateway", "## Gateway to client")
    }

    /// The examples of the gateway's messages.
    pub fn examples_of_the_gateway() -> Vec<Value> {
        examples("## Gateway to client", "## Error codes")
    }

    /// The types that the decoder knows, from its source.
    pub fn decoders_names() -> BTreeSet<&'static str> {
        include_str!("../../crates/june-protocol/src/from_client.rs")
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"')?.split_once("=> FromClient::"))
            .map(|(name, _)| name.split('"').next().unwrap_or_default())
            .collect()
    }

    fn types(examples: &[Value]) -> BTreeSet<&str> {
        examples.iter().map(|example| example["type"].as_str().expect("a type")).collect()
    }

    #[test]
    fn every_example_of_a_client_is_decoded_and_encoded_to_the_same_fields() {
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
    fn every_example_of_the_gateway_is_what_the_gateway_encodes() {
        for example in examples_of_the_gateway() {
            let message: ToClient =
                serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{error}: {example}"));
            let seq = example["seq"].as_u64();
            assert_eq!(seq.is_some(), message.is_sequenced(), "seq of {example}");
            let written: Value = serde_json::from_str(&message.encode(seq)).unwrap();
            assert_eq!(written, example);
        }
    }

    // asyncapi's tests check the same for the gateway's messages.
    #[test]
    fn every_message_of_a_client_has_an_example() {
        assert_eq!(types(&examples_of_clients()), decoders_names());
    }

    #[test]
    fn every_error_code_is_documented_with_its_status() {
        let table = PAGE.split("## Error codes").nth(1).and_then(|rest| rest.split("## ").next()).unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        for row in &rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let code: Code = serde_json::from_value(Value::from(cells[1].trim_matches('`'))).unwrap();
            assert_eq!(cells[2], status(code).as_u16().to_string(), "{code}");
        }
        assert_eq!(rows.len(), 23);
    }

    /// The room has its own `Participant`, with LiveKit's count of changes, and its own `Diff` of them; clients
    /// decode those of `june-protocol`.
    #[test]
    fn a_roster_is_encoded_as_clients_decode_it() {
        use june_protocol::participants::{Diff, Participant};

        use crate::room::roster;

        let track = || roster::Track {
            sid: "TR_1".into(),
            name: "mic".into(),
            source: "microphone".into(),
            muted: true,
        };
        let identity = || Identity::parse("ann").unwrap();
        let participant = || roster::Participant {
            sid: "PA_1".into(),
            identity: identity(),
            name: "Ann".into(),
            metadata: "{}".into(),
            joined_at: 7,
            tracks: vec![track()],
            version: 3,
        };
        let leave = |reason| roster::Leave { sid: "PA_2".into(), identity: identity(), reason };
        let reasons = [
            roster::LeaveReason::Left,
            roster::LeaveReason::DuplicateIdentity,
            roster::LeaveReason::Removed,
            roster::LeaveReason::ConnectionLost,
            roster::LeaveReason::Aborted,
            roster::LeaveReason::RoomFinished,
            roster::LeaveReason::ServerShutdown,
            roster::LeaveReason::Missed,
        ];
        let diff = roster::Diff {
            joined: vec![participant()],
            left: reasons.into_iter().map(leave).collect(),
            updated: vec![participant()],
            tracks: vec![roster::Tracks { sid: "PA_1".into(), identity: identity(), tracks: vec![track()] }],
        };

        let (snapshot, diff) =
            (serde_json::to_value([participant()]).unwrap(), serde_json::to_value(diff).unwrap());

        let decoded: Vec<Participant> = serde_json::from_value(snapshot.clone()).unwrap();
        assert_eq!(serde_json::to_value(decoded).unwrap(), snapshot);
        let decoded: Diff = serde_json::from_value(diff.clone()).unwrap();
        assert_eq!(serde_json::to_value(decoded).unwrap(), diff);
    }
}
