//! WAV files.

use bytes::{BufMut, Bytes, BytesMut};

/// A WAV file of mono PCM (RIFF, format 1).
pub(crate) fn encode(samples: &[i16], rate_hz: u32) -> Bytes {
    const HEADER: u32 = 44;
    let data = u32::try_from(samples.len() * 2).expect("PCM is some minutes long at most");
    let mut wav = BytesMut::with_capacity(HEADER as usize + data as usize);
    wav.put_slice(b"RIFF");
    wav.put_u32_le(HEADER - 8 + data);
    wav.put_slice(b"WAVEfmt ");
    wav.put_u32_le(16);
    wav.put_u16_le(1);
    wav.put_u16_le(1);
    wav.put_u32_le(rate_hz);
    wav.put_u32_le(rate_hz * 2);
    wav.put_u16_le(2);
    wav.put_u16_le(16);
    wav.put_slice(b"data");
    wav.put_u32_le(data);
    for sample in samples {
        wav.put_i16_le(*sample);
    }
    wav.freeze()
}
