//! Turn-taking: from samples to utterances, and from utterances to turns. No I/O and no clock.

pub mod client_vad;
pub mod end_of_turn;
pub mod endpointer;
pub mod turn_manager;
pub mod utterance_detector;
