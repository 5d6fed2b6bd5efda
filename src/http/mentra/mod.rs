//! The HTTP routes that MentraOS phones use beside their WebSocket (docs/MENTRA.md).

pub mod clips;
pub mod phone;
