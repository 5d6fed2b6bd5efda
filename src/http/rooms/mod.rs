//! Who is in LiveKit's rooms: asked once, as an event stream, and LiveKit's webhooks, which say it.

mod access;
mod livekit_events;
pub(super) mod participants;
pub(super) mod stream;
pub(super) mod stream_token;
pub mod webhook;
