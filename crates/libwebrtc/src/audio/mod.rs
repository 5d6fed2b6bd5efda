//! Audio processing between RTP packets and PCM, in both directions.
//!
//! Sans-IO: nothing here reads a clock, opens a socket or blocks.
//!
//! ```text
//! receive  RtpPacket ─▶ red (unpack) ─▶ jitter (order, gaps, pauses) ─▶ receiver (decode) ─▶ sink ─▶ stream
//! send     source ─▶ pacer (real time) ─▶ sender (encode, RTP clock, level) ─▶ RtpWrite
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
