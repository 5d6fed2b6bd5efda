//! LiveKit: API calls, tokens, recordings (egress), and the media agent that joins rooms.

pub mod agent;
pub mod api;
pub mod egress;
pub mod room_token;
pub mod token;
