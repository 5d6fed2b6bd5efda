//! June Edge: an actor-based, stateful edge gateway for voice wearables.
//!
//! Glasses and phones keep one WebSocket to the gateway and publish their microphone to a LiveKit room. The
//! gateway transcribes, asks a language model, and answers in text and speech. docs/ARCHITECTURE.md follows
//! one utterance through it. The order to read the modules in:
//!
//! 1. [`config`] and [`gateway`]: the settings, and everything that is built from them.
//! 2. [`protocol`]: the wire. [`http`] and [`ws`]: the routes and WebSockets that carry it. [`tcp`]: their connections.
//! 3. [`session`]: a pure state machine and the actor that carries out its effects.
//! 4. [`audio`] and [`turn`]: from samples to utterances, from utterances to turns.
//! 5. [`providers`]: STT, LLM, TTS and VAD. [`tools`]: what the LLM may call. [`response`]: an answer as text and as
//!    paced speech.
//! 6. [`livekit`]: tokens, API calls, the media agent. [`room`]: who is in a room, pushed to subscribers.
//! 7. [`store`]: conversation history and session records. [`deny`]: who was removed from a room.
//! 8. [`consumers`]: backends that receive what clients send.
//! 9. [`cli`]: the command line. Its `june talk`, like any other client, is built on the crate `june-client`.
//!
//! Small and shared: [`auth`], [`clock`], [`error`], [`ids`], [`limits`], [`outcomes`], [`rollout`], [`secret`],
//! [`telemetry`].

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the readers of these pages are those who work on the gateway"
)]

pub mod audio;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub(crate) mod consumers;
pub mod deny;
pub mod error;
pub mod gateway;
pub mod http;
pub mod language;
pub mod limits;
pub mod livekit;
pub(crate) mod outcomes;
pub mod protocol;
pub mod providers;
pub mod response;
pub mod rollout;
pub(crate) mod room;
pub mod session;
pub mod store;
pub(crate) mod tcp;
pub mod telemetry;
pub mod tools;
pub mod turn;
pub(crate) mod ws;

pub use june_protocol::{ids, secret};
