//! Sound: from packets to PCM and back. Nothing here reads a clock, opens a socket or waits.
//!
//! ```text
//! in   RtpPacket ─▶ red (unpack) ─▶ jitter (order, holes, pauses) ─▶ receiver (decode) ─▶ sink ─▶ stream
//! out  source ─▶ pacer (real time) ─▶ sender (encode, RTP clock, level) ─▶ RtpWrite
//! ```

pub(crate) mod format;
pub(crate) mod jitter;
#[cfg(test)]
pub(crate) mod measure;
pub(crate) mod opus;
pub(crate) mod pacer;
pub(crate) mod receiver;
pub(crate) mod red;
pub(crate) mod report;
pub(crate) mod resample;
pub(crate) mod sender;
pub(crate) mod sink;
#[cfg(test)]
mod tests;
