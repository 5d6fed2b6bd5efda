//! Who may do what, by which token or key.

mod access;
mod channel_tokens;
mod keys;
mod livekit_tokens;
mod methods;
mod origin;
pub mod refusals;
