//! Rooms: their participants, as subscribers see them, and removals.

mod removal;
mod stream_tokens;
pub mod updates;
