//! June Edge: an actor-based, stateful edge gateway for voice wearables.
//!
//! Glasses and phones keep one WebSocket to the gateway and publish their microphone to a LiveKit
//! room. The gateway hears, transcribes, thinks and answers. docs/ARCHITECTURE.md follows one sentence
//! through it; this is the order to read the modules in:
//!
//! 1. [`config`] and [`gateway`]: what there is to set, and everything built from it.
//! 2. [`protocol`]: what clients and the gateway say to each other. [`http`]: the routes that lead to it.
//! 3. [`session`]: the heart. `session::machine` decides, `session::actor` does.
//! 4. [`agent`]: sound from LiveKit. [`speech`]: from sound to utterances and turns.
//! 5. [`ai`]: utterances to text, text to an answer, an answer to speech.
//! 6. [`history`] on [`disk`]: what was said, kept. [`room`]: who is there, pushed.
//! 7. [`consumers`]: backends that are told what clients say. [`clips`]: answers as files.
//! 8. [`client`] and [`talk`]: the other end of the wire.
//!
//! The rest is small and shared: [`auth`], [`clock`], [`error`], [`ids`], [`livekit`], [`outlet`],
//! [`rollout`], [`secret`], [`telemetry`].

pub mod agent;
pub mod ai;
pub mod auth;
pub mod client;
pub mod clips;
pub mod clock;
pub mod config;
pub mod consumers;
pub mod deny;
pub mod disk;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod gateway;
pub mod history;
pub mod http;
pub mod ids;
pub mod livekit;
pub mod outlet;
pub mod protocol;
pub mod recordings;
pub mod rollout;
pub mod room;
pub mod secret;
pub mod session;
pub mod speech;
pub mod talk;
pub mod telemetry;
