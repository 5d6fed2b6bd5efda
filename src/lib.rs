//! June Edge: an actor-based, stateful edge gateway for voice wearables.
//!
//! Glasses and phones keep one WebSocket to the gateway and publish their microphone to a LiveKit
//! room. The gateway hears, transcribes, thinks and answers; docs/ARCHITECTURE.md follows one
//! sentence through the modules below.

pub mod agent;
pub mod ai;
pub mod auth;
pub mod client;
pub mod clock;
pub mod config;
pub mod deny;
pub mod disk;
pub mod error;
pub mod gateway;
pub mod history;
pub mod http;
pub mod ids;
pub mod livekit;
pub mod outlet;
pub mod protocol;
pub mod recordings;
pub mod room;
pub mod secret;
pub mod session;
pub mod speech;
pub mod talk;
pub mod telemetry;
