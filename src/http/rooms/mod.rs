//! Rooms: participants once and as an event stream, and LiveKit webhooks (docs/PARTICIPANTS.md).

pub mod participants;
pub mod webhook;
