//! The wire of the control channel: plain data and its encoding, no IO.
//!
//! Text frames are JSON objects with a `type`; binary frames are audio with a 16-byte header, up
//! ([`audio::Up`]) and down ([`audio::Down`]). docs/PROTOCOL.md shows every message by an example,
//! and those examples are the fixtures of the tests below.

pub mod audio;
pub mod frame;
pub mod from_client;
pub mod to_client;

pub use from_client::{FromClient, Said};
pub use to_client::ToClient;

/// The name of this protocol, as `Sec-WebSocket-Protocol` and in `connection_init`.
pub const EDGE_V1: &str = "edge.v1";

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
