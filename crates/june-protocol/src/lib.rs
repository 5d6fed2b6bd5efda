//! The wire of June Edge's control channel, `edge.v1`: plain data and its encoding, without I/O.
//!
//! The gateway and its clients share this crate. docs/PROTOCOL.md shows every message by an example.
//!
//! - [`FromClient`], [`ClientMessage`]: JSON messages from a client;
//! - [`ToClient`]: JSON messages from the gateway;
//! - [`audio`]: binary frames in both directions;
//! - [`Code`], [`Close`]: error codes and close codes;
//! - [`ids`], [`Secret`]: ids, parsed once and then trusted, and values that must not be logged.
//!
//! ```
//! use june_protocol::{ClientMessage, FromClient, ToClient};
//!
//! let text = r#"{"type": "say", "text": "What time is it?"}"#;
//! let FromClient::Say(say) = ClientMessage::decode(text)?.message else { unreachable!() };
//! assert_eq!(say.text, "What time is it?");
//!
//! let message = ToClient::AudioStopRequest { app_id: "june".into() };
//! assert_eq!(message.encode(Some(7)), r#"{"seq":7,"type":"audio_stop_request","appId":"june"}"#);
//! # Ok::<(), june_protocol::DecodeError>(())
//! ```

#![warn(missing_docs)]

pub mod audio;
mod code;
pub mod from_client;
pub mod ids;
pub mod participants;
pub mod secret;
mod session_options;
mod timestamp;
pub mod to_client;

pub use audio::SAMPLE_RATE_HZ;
pub use code::{Close, Code};
pub use from_client::{ClientMessage, FromClient};
pub use secret::Secret;
pub use session_options::{
    InvalidOption, Mode, ParticipantGroup, Participants, SessionOptions, ToolDeclaration, ToolKind,
};
pub use timestamp::{parse_timestamp, timestamp};
pub use to_client::ToClient;

/// The name of this protocol: the WebSocket subprotocol, and `protocol` of `connection_init`.
pub const EDGE_V1: &str = "edge.v1";

/// The largest text frame that a client may send, in bytes.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The largest binary frame that a client may send, in bytes, header included.
pub const MAX_BINARY_BYTES: usize = 64 * 1024;

/// Why a frame could not be decoded. The connection stays open; the client gets an `error` message.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON, not an object, or a field of the wrong type.
    #[error("not a message of this protocol: {0}")]
    Json(String),
    /// An object without a `type`.
    #[error("a message needs a \"type\"")]
    NoType,
    /// A binary frame that is shorter than its header, or has another magic byte or version.
    #[error("not an audio frame: {0}")]
    Header(&'static str),
    /// A codec that was not negotiated, or that the gateway does not decode.
    #[error("codec not supported: {0}")]
    Codec(&'static str),
}
