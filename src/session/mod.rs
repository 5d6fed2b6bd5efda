//! One user's presence on the gateway.

pub mod actor;
pub mod answer;
pub mod directory;
pub mod flood;
pub mod fragments;
mod fresh;
pub mod gap;
pub mod machine;
pub mod messages;
pub mod microphone;
pub mod outbox;
pub mod records;
pub mod socket;
pub mod sources;
pub mod subscriptions;
pub mod takeovers;
pub mod uplink;
pub mod vad;
