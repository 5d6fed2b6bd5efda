//! The real parts together: the `june` binary, a livekit-server, the embedded models, the official
//! Python SDK and a browser. `make test` installs them; a part that is missing is an error, never a skip.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where something is missing, waits for one message of many"
)]

mod audio_paths;
mod browser;
mod channel_sound;
mod client_vad;
mod conversation;
mod crash;
mod dev_pair;
mod endurance;
mod livekit_away;
mod llm_sdks;
mod mentra;
mod provider_sdks;
mod removal;
mod roster;
mod several_people;
mod speech_in_room;
mod stalled;
mod support;
mod talk;
