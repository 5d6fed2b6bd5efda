//! Outgoing WebSocket frames (RFC 6455 §5) as bytes: encoded once and shared.

use actix_http::ws::{CloseCode, CloseReason, OpCode, Parser};
use bytes::{Bytes, BytesMut};

use crate::error::Close;

pub(crate) fn text(text: &str) -> Bytes {
    frame(text.as_bytes(), OpCode::Text)
}

pub(crate) fn binary(payload: &[u8]) -> Bytes {
    frame(payload, OpCode::Binary)
}

pub(crate) fn ping() -> Bytes {
    frame(b"", OpCode::Ping)
}

pub(crate) fn close(close: Close, reason: &str) -> Bytes {
    encode_close(Some(CloseReason { code: CloseCode::from(close.code()), description: Some(reason.into()) }))
}

/// The answer to a client's close frame: its code, if it has one (§5.5.1).
pub(super) fn close_echo(code: Option<CloseCode>) -> Bytes {
    encode_close(code.map(CloseReason::from))
}

fn encode_close(reason: Option<CloseReason>) -> Bytes {
    let mut bytes = BytesMut::new();
    Parser::write_close(&mut bytes, reason, false);
    bytes.freeze()
}

fn frame(payload: &[u8], opcode: OpCode) -> Bytes {
    let mut bytes = BytesMut::with_capacity(payload.len() + 10);
    Parser::write_message(&mut bytes, payload, opcode, true, false);
    bytes.freeze()
}
