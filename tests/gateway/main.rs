//! The whole gateway in this process, over real sockets, without models and without LiveKit.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where something is missing, waits for one message of many"
)]

mod ai;
mod auth;
mod channel;
mod connections;
mod limits;
mod mentra;
mod ops;
mod rooms;
mod sessions;
mod support;

use support::{issuer, livekit, phone, raw};
