//! One user's presence on the gateway.

pub mod answer;
pub mod machine;
pub mod microphone;
pub mod outbox;
pub mod sources;
