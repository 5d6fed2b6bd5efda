//! Lines that are asked over REST, and transcripts that come by webhook.

mod chat;
mod stt_webhook;
