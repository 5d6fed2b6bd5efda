//! The HTTP routes that MentraOS phones use beside their WebSocket (docs/MENTRA.md).

pub(super) mod clips;
pub(super) mod phone;
