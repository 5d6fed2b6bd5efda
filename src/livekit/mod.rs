//! LiveKit: API calls, tokens, webhooks, recordings (egress), and the media agent that joins rooms.

pub mod agent;
pub mod api;
pub mod egress;
pub mod token;
pub(crate) mod webhook;
