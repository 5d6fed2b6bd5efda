//! From the binary frames of a client to 16 kHz mono samples.
//!
//! Frames are counted by the client, over reconnects: one that was seen is dropped, one that is
//! missing is a gap in the metrics. An odd byte at the end of a frame belongs to the next one.

use crate::{
    ai::LISTEN_RATE_HZ,
    protocol::{
        DecodeError,
        audio::{Codec, Up},
        from_client::AudioConfig,
    },
    speech::pcm::{PcmBytes, Resampler},
    telemetry,
};

/// The decoder of one session's binary frames.
#[derive(Default)]
pub struct Uplink {
    format: AudioConfig,
    bytes: PcmBytes,
    /// None where the client sends what is listened to.
    resampler: Option<Resampler>,
    /// The number of the last frame.
    last_seq: Option<u32>,
}

impl Uplink {
    /// The client says how its frames are packed from now on.
    pub fn configure(&mut self, format: AudioConfig) -> Result<(), DecodeError> {
        if format.codec != Codec::Pcm16le {
            return Err(DecodeError::Codec("send pcm16le on this channel"));
        }
        let same = format.sample_rate == LISTEN_RATE_HZ && format.channels == 1;
        self.resampler = if same {
            None
        } else {
            let resampler = Resampler::new(format.sample_rate, u16::from(format.channels), LISTEN_RATE_HZ);
            Some(resampler.map_err(|_| DecodeError::Codec("sample rate or number of channels"))?)
        };
        self.format = format;
        self.bytes = PcmBytes::default();
        Ok(())
    }

    /// Takes bare 16 kHz mono PCM, as clients of the `mentra` profile send it; gives its samples.
    pub fn take_bare(&mut self, payload: &[u8]) -> Vec<i16> {
        self.bytes.decode(payload)
    }

    /// Takes a frame; gives its samples, or none where it was seen before.
    pub fn take(&mut self, frame: &Up) -> Result<Vec<i16>, DecodeError> {
        if frame.codec != self.format.codec {
            return Err(DecodeError::Codec("not what audio_config announced"));
        }
        if let Some(last) = self.last_seq {
            // Serial number arithmetic (RFC 1982): half of the numbers are ahead, half are behind.
            let ahead = frame.seq.wrapping_sub(last);
            if ahead == 0 || ahead > u32::MAX / 2 {
                metrics::counter!(telemetry::UPLINK_STALE).increment(1);
                return Ok(Vec::new());
            }
            if ahead > 1 {
                metrics::counter!(telemetry::UPLINK_LOST).increment(u64::from(ahead - 1));
                self.bytes.reset();
            }
        }
        self.last_seq = Some(frame.seq);
        let samples = self.bytes.decode(&frame.payload);
        Ok(match &mut self.resampler {
            Some(resampler) => resampler.process(&samples),
            None => samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seq: u32, payload: &'static [u8]) -> Up {
        Up {
            codec: Codec::Pcm16le,
            pre_roll: false,
            backfill: false,
            end: false,
            seq,
            capture_ms: 0,
            payload: payload.into(),
        }
    }

    #[test]
    fn an_odd_byte_belongs_to_the_next_frame() {
        let mut uplink = Uplink::default();
        assert_eq!(uplink.take(&frame(1, &[1, 0, 2])), Ok(vec![1]));
        assert_eq!(uplink.take(&frame(2, &[0, 3, 0])), Ok(vec![2, 3]));
    }

    #[test]
    fn bare_samples_may_be_cut_anywhere() {
        let mut uplink = Uplink::default();
        assert_eq!(uplink.take_bare(&[]), [0_i16; 0]);
        assert_eq!(uplink.take_bare(&[1]), [0_i16; 0]);
        assert_eq!(uplink.take_bare(&[0, 2, 0, 3]), [1, 2]);
        assert_eq!(uplink.take_bare(&[0]), [3]);
    }

    #[test]
    fn after_a_gap_the_odd_byte_is_forgotten() {
        let mut uplink = Uplink::default();
        assert_eq!(uplink.take(&frame(1, &[1, 0, 2])), Ok(vec![1]));
        assert_eq!(uplink.take(&frame(3, &[4, 0])), Ok(vec![4]));
    }

    #[test]
    fn a_frame_is_heard_once_also_where_the_numbers_wrap() {
        let mut uplink = Uplink::default();
        assert_eq!(uplink.take(&frame(u32::MAX, &[1, 0])), Ok(vec![1]));
        assert_eq!(uplink.take(&frame(u32::MAX, &[1, 0])), Ok(vec![]));
        assert_eq!(uplink.take(&frame(0, &[2, 0])), Ok(vec![2]));
        assert_eq!(uplink.take(&frame(u32::MAX - 1, &[9, 0])), Ok(vec![]));
    }

    #[test]
    fn another_rate_is_brought_to_ours() {
        let mut uplink = Uplink::default();
        let format = AudioConfig { sample_rate: 48_000, channels: 2, ..AudioConfig::default() };
        uplink.configure(format).unwrap();
        let second = vec![0; 48_000 * 2 * 2];
        let samples = uplink.take(&Up { payload: second.into(), ..frame(1, &[]) }).unwrap();
        assert!((15_000..=16_000).contains(&samples.len()), "{}", samples.len());
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        let mut uplink = Uplink::default();
        let opus = Up { codec: Codec::Opus, ..frame(1, &[]) };
        assert!(matches!(uplink.take(&opus), Err(DecodeError::Codec(_))));
        for (codec, sample_rate, channels) in
            [(Codec::Lc3, 16_000, 1), (Codec::Pcm16le, 0, 1), (Codec::Pcm16le, 16_000, 9)]
        {
            let refused = uplink.configure(AudioConfig { codec, sample_rate, channels });
            assert!(matches!(refused, Err(DecodeError::Codec(_))), "{codec:?} {sample_rate} {channels}");
        }
    }
}
