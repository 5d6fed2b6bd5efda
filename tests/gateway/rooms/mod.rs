//! Rooms: their participants, as subscribers see them, and removals.

mod removal;
mod updates;
