//! Who may do what, by which token or key.

mod channel_tokens;
mod livekit_tokens;
mod methods;
pub mod refusals;
