//! Speech to Opus packets (RFC 6716): 24 kHz mono, for a channel that loses no packets.

use audiopus::{Application, Bitrate, Channels, SampleRate, Signal, coder::Encoder};
use bytes::Bytes;

/// The rate of speech in Opus, in Hz: the least that keeps what TTS produces (docs/PROTOCOL.md).
pub const OPUS_SPEECH_RATE_HZ: u32 = 24_000;

/// On average. As LiveKit's preset for speech.
const BITS_PER_S: i32 = 24_000;

/// More than any packet has: three Opus frames of 1,275 bytes, and their lengths (RFC 6716 §3.2).
const MAX_PACKET_BYTES: usize = 4_000;

/// The encoder of one response.
pub struct OpusEncoder {
    encoder: Encoder,
    pre_skip: usize,
}

impl OpusEncoder {
    /// An encoder at the beginning of a response.
    pub fn new() -> Self {
        let (encoder, pre_skip) = Self::configured().expect("libopus has memory, and knows these values");
        Self { encoder, pre_skip }
    }

    fn configured() -> audiopus::Result<(Encoder, usize)> {
        let mut encoder = Encoder::new(SampleRate::Hz24000, Channels::Mono, Application::Audio)?;
        encoder.set_signal(Signal::Voice)?;
        encoder.set_bitrate(Bitrate::BitsPerSecond(BITS_PER_S))?;
        let pre_skip = encoder.lookahead()? as usize;
        Ok((encoder, pre_skip))
    }

    /// The encoder's lookahead: so many samples of the decoder's output come before the first one that went in.
    pub fn pre_skip(&self) -> usize {
        self.pre_skip
    }

    /// The packet of the next 20 or 60 ms.
    pub fn encode(&mut self, samples: &[i16]) -> Bytes {
        let mut packet = [0; MAX_PACKET_BYTES];
        let length = self
            .encoder
            .encode(samples, &mut packet)
            .expect("the samples are as many as Opus has in a packet");
        Bytes::copy_from_slice(&packet[..length])
    }
}

impl Default for OpusEncoder {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for OpusEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpusEncoder").field("pre_skip", &self.pre_skip).finish_non_exhaustive()
    }
}
