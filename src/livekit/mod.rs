//! LiveKit: API calls, tokens, webhooks, recordings (egress), and the media agent that joins rooms.

pub(crate) mod agent;
pub(crate) mod api;
pub(crate) mod egress;
pub mod token;
pub(crate) mod webhook;
