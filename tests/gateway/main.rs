//! The whole gateway in this process, over real sockets, without models and without LiveKit: what a
//! client sees of sessions, of the control channel and of its own mistakes.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where something is missing, waits for one message of many"
)]

mod admin;
mod auth;
mod conformance;
mod connect;
mod consumers;
mod conversation;
mod deploy;
mod floods;
mod history;
mod issuer;
mod livekit;
mod mentra;
mod phone;
mod process;
mod raw;
mod refusals;
mod removal;
mod renewal;
mod rest_page;
mod resume;
mod rooms;
mod sessions;
mod support;
mod tokens;
mod upgrades;
