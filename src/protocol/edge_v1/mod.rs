//! The wire of `edge.v1` (docs/PROTOCOL.md): JSON messages in both directions, and binary audio frames.

pub mod audio;
pub mod from_client;
pub mod to_client;
