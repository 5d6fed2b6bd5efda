//! Audio on the control channel: binary frames with a 16-byte big-endian header.
//!
//! ```text
//!        0      1      2       3       4           8                   16
//!  up    0xE1   ver=1  codec   flags   u32 seq     u64 capture ms      payload …
//!  down  0xE2   ver=1  codec   flags   u32 gener.  u64 position        20 or 60 ms of payload
//! ```
//!
//! The payload of the last Opus frame down begins with a u16: how many samples at the end of its packet are padding.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::DecodeError;

/// Sample rate of microphone audio where a client does not say otherwise: 16 kHz, mono.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// Length of both headers in bytes.
pub const HEADER_BYTES: usize = 16;
const UP: u8 = 0xE1;
const DOWN: u8 = 0xE2;
const VERSION: u8 = 1;

/// The encoding of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Signed 16 bit little-endian.
    Pcm16le,
    /// LC3 frames. The gateway does not decode them.
    Lc3,
    /// One Opus packet per frame (RFC 6716).
    Opus,
}

impl Codec {
    const fn number(self) -> u8 {
        match self {
            Self::Pcm16le => 0,
            Self::Lc3 => 1,
            Self::Opus => 2,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Pcm16le),
            1 => Some(Self::Lc3),
            2 => Some(Self::Opus),
            _ => None,
        }
    }
}

/// A frame of microphone audio, client to gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkFrame {
    /// The encoding of the payload.
    pub codec: Codec,
    /// Captured before the client's VAD detected speech.
    pub pre_roll: bool,
    /// Captured while the channel was disconnected, and sent afterwards.
    pub backfill: bool,
    /// The last frame before the microphone is turned off.
    pub end: bool,
    /// Counts the frames of a session, across reconnects.
    pub seq: u32,
    /// The capture time of the first sample, in milliseconds of the client's clock.
    pub capture_ms: u64,
    /// The samples.
    pub payload: Bytes,
}

const FLAG_PRE_ROLL: u8 = 1;
const FLAG_BACKFILL: u8 = 2;
const FLAG_END: u8 = 4;

impl UplinkFrame {
    /// Decodes a binary frame.
    pub fn decode(mut frame: Bytes) -> Result<Self, DecodeError> {
        if frame.len() < HEADER_BYTES {
            return Err(DecodeError::Header("shorter than its 16-byte header"));
        }
        let header = frame.split_to(HEADER_BYTES);
        if header[0] != UP {
            return Err(DecodeError::Header("the first byte is not 0xE1"));
        }
        if header[1] != VERSION {
            return Err(DecodeError::Header("the version is not 1"));
        }
        let codec = Codec::from_number(header[2]).ok_or(DecodeError::Codec("unknown number"))?;
        Ok(Self {
            codec,
            pre_roll: header[3] & FLAG_PRE_ROLL != 0,
            backfill: header[3] & FLAG_BACKFILL != 0,
            end: header[3] & FLAG_END != 0,
            seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            capture_ms: u64::from_be_bytes([
                header[8], header[9], header[10], header[11], header[12], header[13], header[14], header[15],
            ]),
            payload: frame,
        })
    }

    /// Encodes a binary frame.
    pub fn encode(&self) -> Bytes {
        let flags = u8::from(self.pre_roll) * FLAG_PRE_ROLL
            + u8::from(self.backfill) * FLAG_BACKFILL
            + u8::from(self.end) * FLAG_END;
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + self.payload.len());
        frame.put_slice(&[UP, VERSION, self.codec.number(), flags]);
        frame.put_u32(self.seq);
        frame.put_u64(self.capture_ms);
        frame.put_slice(&self.payload);
        frame.freeze()
    }
}

/// A frame of the spoken response, gateway to client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownlinkFrame {
    /// The encoding of the payload.
    pub codec: Codec,
    /// The last frame of this generation.
    pub end: bool,
    /// The response that it belongs to. A client drops frames of older responses.
    pub generation: u32,
    /// Samples since `speech_begin`. Of Opus: as they are decoded, with `preSkip`.
    pub position: u64,
    /// Samples at the end of the last Opus packet that are padding, and no part of the response.
    pub padding: u16,
    /// 20 or 60 ms of samples, fewer in the last frame; or an Opus packet of that length.
    pub payload: Bytes,
}

impl DownlinkFrame {
    /// Encodes a binary frame of PCM samples.
    pub fn encode_pcm(generation: u32, position: u64, end: bool, samples: &[i16]) -> Bytes {
        let mut frame = Self::header(Codec::Pcm16le, generation, position, end, samples.len() * 2);
        for sample in samples {
            frame.put_i16_le(*sample);
        }
        frame.freeze()
    }

    /// Encodes a binary frame with an Opus packet. The last one has `padding`.
    pub fn encode_opus(generation: u32, position: u64, padding: Option<u16>, packet: &[u8]) -> Bytes {
        let mut frame = Self::header(Codec::Opus, generation, position, padding.is_some(), packet.len() + 2);
        if let Some(padding) = padding {
            frame.put_u16(padding);
        }
        frame.put_slice(packet);
        frame.freeze()
    }

    fn header(codec: Codec, generation: u32, position: u64, end: bool, payload: usize) -> BytesMut {
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload);
        frame.put_slice(&[DOWN, VERSION, codec.number(), u8::from(end) * FLAG_END]);
        frame.put_u32(generation);
        frame.put_u64(position);
        frame
    }

    /// Decodes a binary frame.
    pub fn decode(mut frame: Bytes) -> Result<Self, DecodeError> {
        if frame.len() < HEADER_BYTES {
            return Err(DecodeError::Header("shorter than its 16-byte header"));
        }
        let header = frame.split_to(HEADER_BYTES);
        if header[0] != DOWN || header[1] != VERSION {
            return Err(DecodeError::Header("the first bytes are not 0xE2 1"));
        }
        let codec = Codec::from_number(header[2]).ok_or(DecodeError::Codec("unknown number"))?;
        let end = header[3] & FLAG_END != 0;
        let padding = match codec {
            Codec::Opus if end => {
                frame.try_get_u16().map_err(|_| DecodeError::Header("the last frame has no padding"))?
            }
            Codec::Opus | Codec::Pcm16le | Codec::Lc3 => 0,
        };
        Ok(Self {
            codec,
            end,
            padding,
            generation: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            position: u64::from_be_bytes([
                header[8], header[9], header[10], header[11], header[12], header[13], header[14], header[15],
            ]),
            payload: frame,
        })
    }

    /// The payload as samples; the codec must be PCM.
    pub fn samples(&self) -> Vec<i16> {
        self.payload.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_up_survives_the_wire(
            seq: u32, capture_ms: u64, pre_roll: bool, backfill: bool, end: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let frame = UplinkFrame { codec: Codec::Opus, pre_roll, backfill, end, seq, capture_ms, payload: payload.into() };
            prop_assert_eq!(UplinkFrame::decode(frame.encode()), Ok(frame));
        }

        #[test]
        fn a_frame_down_survives_the_wire(
            generation: u32, position: u64, end: bool,
            samples in proptest::collection::vec(any::<i16>(), 0..400),
        ) {
            let frame = DownlinkFrame::decode(DownlinkFrame::encode_pcm(generation, position, end, &samples)).unwrap();
            prop_assert_eq!(frame.samples(), samples);
            prop_assert_eq!((frame.generation, frame.position, frame.end), (generation, position, end));
        }

        #[test]
        fn an_opus_frame_down_survives_the_wire(
            generation: u32, position: u64, padding: Option<u16>,
            packet in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let bytes = DownlinkFrame::encode_opus(generation, position, padding, &packet);
            let frame = DownlinkFrame::decode(bytes).unwrap();
            let (end, padding) = (padding.is_some(), padding.unwrap_or_default());
            let payload = packet.into();
            prop_assert_eq!(frame, DownlinkFrame { codec: Codec::Opus, end, generation, position, padding, payload });
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = UplinkFrame::decode(bytes.clone().into());
            let _ = DownlinkFrame::decode(bytes.into());
        }
    }

    #[test]
    fn a_frame_that_is_not_ours_says_what_is_wrong() {
        assert_eq!(
            UplinkFrame::decode(Bytes::from_static(&[0xE1; 15])),
            Err(DecodeError::Header("shorter than its 16-byte header"))
        );
        assert_eq!(
            UplinkFrame::decode(Bytes::from_static(&[0; 16])),
            Err(DecodeError::Header("the first byte is not 0xE1"))
        );
        let mut frame = [0; 16];
        frame[..3].copy_from_slice(&[0xE1, 1, 9]);
        assert_eq!(
            UplinkFrame::decode(Bytes::copy_from_slice(&frame)),
            Err(DecodeError::Codec("unknown number"))
        );
    }
}
