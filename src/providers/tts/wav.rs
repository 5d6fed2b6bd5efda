//! WAV files, decoded while they come.

use futures::{StreamExt, stream};
use reqwest::Response;

use super::speech::{self, Pieces};
use crate::{
    audio::pcm::{self, Resampler},
    providers::{ProviderError, http},
    secret::Secret,
};

/// The most that may come before the samples, in bytes: files can have tags and pictures.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Programs that write to a pipe do not know the length: they give 0, the largest number, or one just below 2³¹.
const UNKNOWN_LENGTH: u32 = 0x7FFF_0000;

/// The samples of a response whose body is a WAV file, mono, at `to_hz`.
pub(super) async fn response(
    response: Response,
    to_hz: u32,
    key: Option<&Secret>,
) -> Result<Pieces, ProviderError> {
    let is_wav = match speech::ContentType::of(&response).essence.as_str() {
        "" => true,
        essence => {
            essence.ends_with("/octet-stream") || essence.starts_with("audio/") && essence.contains("wav")
        }
    };
    if !is_wav {
        return Err(http::unexpected(response, key).await);
    }
    let state = Some((Box::pin(speech::body(response)), Decoder::new(to_hz)));
    let pieces = stream::unfold(state, |state| async {
        let (mut body, mut decoder) = state?;
        match body.next().await {
            Some(Ok(bytes)) => match decoder.push(&bytes) {
                Ok(samples) => Some((Ok(samples), Some((body, decoder)))),
                Err(error) => Some((Err(error), None)),
            },
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((decoder.finish(), None)),
        }
    });
    Ok(pieces.boxed())
}

/// Turns the bytes of a file, split anywhere, into mono samples of one rate.
struct Decoder {
    to_hz: u32,
    state: State,
}

enum State {
    /// What has come of the header.
    Header(Vec<u8>),
    Samples(Box<Samples>),
}

struct Samples {
    format: Format,
    /// What the file says is left of them; none if it does not know.
    bytes_left: Option<usize>,
    /// A part of a sample.
    partial: Vec<u8>,
    resampler: Resampler,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Format {
    encoding: Encoding,
    channels: u16,
    rate_hz: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    Int8,
    Int16,
    Int24,
    Int32,
    Float32,
    Float64,
}

#[derive(Debug, PartialEq)]
struct Header {
    format: Format,
    /// Of the samples; none if the file does not know.
    bytes: Option<usize>,
    /// Where the samples begin.
    end: usize,
}

impl Decoder {
    fn new(to_hz: u32) -> Self {
        Self { to_hz, state: State::Header(Vec::new()) }
    }

    /// The samples that `bytes` completes.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<i16>, ProviderError> {
        let head = match &mut self.state {
            State::Samples(samples) => return Ok(samples.push(bytes)),
            State::Header(head) => head,
        };
        head.extend_from_slice(bytes);
        let Some(Header { format, bytes, end }) = header(head).map_err(garbled)? else {
            return if head.len() > MAX_HEADER_BYTES {
                Err(garbled("its header is too long"))
            } else {
                Ok(Vec::new())
            };
        };
        let resampler = Resampler::new(format.rate_hz, format.channels, self.to_hz)
            .map_err(|error| garbled(&error.to_string()))?;
        let mut samples = Samples { format, bytes_left: bytes, partial: Vec::new(), resampler };
        let first = samples.push(&head[end..]);
        self.state = State::Samples(Box::new(samples));
        Ok(first)
    }

    /// The last samples, which the resampler has kept.
    fn finish(&mut self) -> Result<Vec<i16>, ProviderError> {
        match &mut self.state {
            State::Header(head) if head.is_empty() => Err(ProviderError::Empty),
            State::Header(_) => Err(garbled("it ends within its header")),
            State::Samples(samples) if samples.bytes_left.is_some_and(|left| left > 0) => {
                Err(ProviderError::Connection("the WAV file ended early".into()))
            }
            State::Samples(samples) => Ok(samples.finish(self.to_hz)),
        }
    }
}

impl Samples {
    fn push(&mut self, bytes: &[u8]) -> Vec<i16> {
        let count = self.bytes_left.map_or(bytes.len(), |left| left.min(bytes.len()));
        if let Some(left) = &mut self.bytes_left {
            *left -= count;
        }
        self.partial.extend_from_slice(&bytes[..count]);
        let encoding = self.format.encoding;
        let whole = self.partial.chunks_exact(encoding.bytes());
        let rest = whole.remainder().to_vec();
        let samples: Vec<i16> = whole.map(|sample| encoding.sample(sample)).collect();
        self.partial = rest;
        self.resampler.process(&samples)
    }

    fn finish(&mut self, to_hz: u32) -> Vec<i16> {
        if self.format.rate_hz == to_hz {
            return Vec::new();
        }
        // Two blocks of the resampler: it keeps less than one, and its delay is half of one.
        let frames = self.format.rate_hz as usize / 25;
        self.resampler.process(&vec![0; frames * usize::from(self.format.channels)])
    }
}

impl Encoding {
    fn bytes(self) -> usize {
        match self {
            Self::Int8 => 1,
            Self::Int16 => 2,
            Self::Int24 => 3,
            Self::Int32 | Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// `bytes` is as long as [`Self::bytes`].
    fn sample(self, bytes: &[u8]) -> i16 {
        match (self, bytes) {
            (Self::Int8, &[byte]) => (i16::from(byte) - 128) << 8,
            (Self::Int16, &[low, high])
            | (Self::Int24, &[_, low, high])
            | (Self::Int32, &[_, _, low, high]) => i16::from_le_bytes([low, high]),
            (Self::Float32, &[a, b, c, d]) => pcm::from_f32(f32::from_le_bytes([a, b, c, d])),
            (Self::Float64, &[a, b, c, d, e, f, g, h]) => {
                pcm::from_f32(f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32)
            }
            _ => 0,
        }
    }
}

/// Reads the chunks before the samples (RIFF, "Multimedia Programming Interface and Data Specifications 1.0"). None if
/// more of it is to come.
fn header(head: &[u8]) -> Result<Option<Header>, &'static str> {
    let is_riff = |from: usize, id: &[u8]| {
        let have = head.len().saturating_sub(from).min(4);
        head.get(from..from + have).is_none_or(|found| id.starts_with(found))
    };
    if !is_riff(0, b"RIFF") || !is_riff(8, b"WAVE") {
        return Err("it is not one");
    }
    let mut format = None;
    let mut at = 12;
    loop {
        let Some(([id @ .., _, _, _, _], body)) = head.get(at..).and_then(<[u8]>::split_first_chunk::<8>)
        else {
            return Ok(None);
        };
        let size = u32_at(head, at + 4);
        match (id, format) {
            (b"data", None) => return Err("it does not say how its samples are encoded"),
            (b"data", Some(format)) => {
                let is_known = size != 0 && size < UNKNOWN_LENGTH;
                return Ok(Some(Header { format, bytes: is_known.then_some(size as usize), end: at + 8 }));
            }
            (b"fmt ", _) => match body.get(..size as usize) {
                None if size as usize <= MAX_HEADER_BYTES => return Ok(None),
                None => return Err("its header is too long"),
                Some(fields) => format = Some(read_format(fields)?),
            },
            _ => {}
        }
        // Chunks begin at even places.
        at = at.saturating_add(8).saturating_add(size as usize).saturating_add(size as usize % 2);
    }
}

fn read_format(fields: &[u8]) -> Result<Format, &'static str> {
    const PCM: u16 = 1;
    const FLOAT: u16 = 3;
    const EXTENSIBLE: u16 = 0xFFFE;
    if fields.len() < 16 {
        return Err("its header is too short");
    }
    let u16_at = |at: usize| u16::from_le_bytes([fields[at], fields[at + 1]]);
    let tag = match u16_at(0) {
        EXTENSIBLE if fields.len() >= 26 => u16_at(24),
        tag => tag,
    };
    let (channels, rate_hz, frame_bytes, bits) = (u16_at(2), u32_at(fields, 4), u16_at(12), u16_at(14));
    let encoding = match (tag, bits) {
        (PCM, 8) => Encoding::Int8,
        (PCM, 16) => Encoding::Int16,
        (PCM, 24) => Encoding::Int24,
        (PCM, 32) => Encoding::Int32,
        (FLOAT, 32) => Encoding::Float32,
        (FLOAT, 64) => Encoding::Float64,
        _ => return Err("its samples are not PCM"),
    };
    if usize::from(frame_bytes) != encoding.bytes() * usize::from(channels) {
        return Err("its header contradicts itself");
    }
    Ok(Format { encoding, channels, rate_hz })
}

/// `bytes` reaches that far.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn garbled(problem: &str) -> ProviderError {
    ProviderError::Garbled(format!("a WAV file that cannot be read: {problem}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use hound::{SampleFormat, WavSpec, WavWriter};
    use proptest::prelude::*;

    use super::*;
    use crate::audio::{pcm::level_dbfs, wav};

    const RATE_HZ: u32 = 24_000;

    fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate, bits_per_sample, sample_format }
    }

    /// One second of a tone at half of full scale, of 440 Hz.
    fn tone(spec: WavSpec) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut file, spec).unwrap();
        let step = 440.0 * std::f64::consts::TAU / f64::from(spec.sample_rate);
        for n in 0..spec.sample_rate {
            let sample = (f64::from(n) * step).sin() / 2.0;
            for _ in 0..spec.channels {
                match spec.sample_format {
                    SampleFormat::Float => writer.write_sample(sample as f32).unwrap(),
                    SampleFormat::Int => {
                        let scale = f64::from(1_u32 << (spec.bits_per_sample - 1));
                        writer.write_sample((sample * scale) as i32).unwrap();
                    }
                }
            }
        }
        writer.finalize().unwrap();
        file.into_inner()
    }

    /// What the decoder gives for a file that comes in pieces of `cut` bytes.
    fn decode(file: &[u8], cut: usize) -> Result<Vec<i16>, ProviderError> {
        let mut decoder = Decoder::new(RATE_HZ);
        let mut samples = Vec::new();
        for piece in file.chunks(cut) {
            samples.extend(decoder.push(piece)?);
        }
        samples.extend(decoder.finish()?);
        Ok(samples)
    }

    /// A file of 16 bit, mono, with these lengths in its header and `more` between header and samples.
    fn file(length: u32, more: &[u8], samples: &[i16]) -> Vec<u8> {
        let plain = wav::encode(samples, RATE_HZ);
        [&plain[..36], more, b"data", &length.to_le_bytes(), &plain[44..]].concat()
    }

    #[test]
    fn a_tone_keeps_its_level_and_length_from_every_usual_format() {
        let formats = [
            spec(1, 24_000, 16, SampleFormat::Int),
            spec(1, 24_000, 8, SampleFormat::Int),
            spec(1, 24_000, 24, SampleFormat::Int),
            spec(1, 24_000, 32, SampleFormat::Int),
            spec(1, 24_000, 32, SampleFormat::Float),
            spec(2, 24_000, 16, SampleFormat::Int),
            spec(2, 48_000, 24, SampleFormat::Int),
            spec(1, 8_000, 16, SampleFormat::Int),
            spec(1, 16_000, 16, SampleFormat::Int),
            spec(1, 22_050, 16, SampleFormat::Int),
            spec(2, 44_100, 32, SampleFormat::Float),
        ];
        for spec in formats {
            let samples = decode(&tone(spec), 4_096).unwrap();

            let level = level_dbfs(&samples[2_000..22_000]);
            assert!((level + 9.03).abs() < 0.2, "{spec:?}: {level} dBFS");
            assert!((24_000..25_000).contains(&samples.len()), "{spec:?}: {} samples", samples.len());
        }
    }

    #[test]
    fn the_length_may_be_unknown_and_what_follows_the_samples_is_ignored() {
        for length in [0, u32::MAX, 0x7FFF_F000] {
            assert_eq!(decode(&file(length, &[], &[1, 2, 3]), 5).unwrap(), [1, 2, 3]);
        }
        let mut with_tags = file(6, b"LIST\x03\0\0\0abc\0", &[1, 2, 3]);
        with_tags.extend(b"LIST\x04\0\0\0tags");
        assert_eq!(decode(&with_tags, 7).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let whole = file(6, &[], &[1, 2, 3]);

        assert_eq!(decode(&[], 9), Err(ProviderError::Empty));
        for end in 1..44 {
            assert!(matches!(decode(&whole[..end], 9), Err(ProviderError::Garbled(_))), "{end} bytes");
        }
        for end in 44..50 {
            assert!(matches!(decode(&whole[..end], 9), Err(ProviderError::Connection(_))), "{end} bytes");
        }
    }

    #[test]
    fn what_is_no_wav_file_or_has_no_pcm_is_refused_with_the_reason() {
        let with = |at: usize, bytes: &[u8]| {
            let mut file = file(6, &[], &[1, 2, 3]);
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        let endless_header = [b"RIFF\0\0\0\0WAVE".to_vec(), b"junk\x02\0\0\0ab".repeat(7_000)].concat();
        for (file, problem) in [
            (b"ID3\x04\0\0\0\0\0\0\0\0\0".to_vec(), "it is not one"),
            (b"RIFX\0\0\0\0WAVE".to_vec(), "it is not one"),
            (b"RIFF\0\0\0\0AVI LIST".to_vec(), "it is not one"),
            (with(12, b"fact"), "it does not say how its samples are encoded"),
            (with(16, &4_u32.to_le_bytes()), "its header is too short"),
            (with(16, &u32::MAX.to_le_bytes()), "its header is too long"),
            (with(20, &6_u16.to_le_bytes()), "its samples are not PCM"),
            (with(34, &12_u16.to_le_bytes()), "its samples are not PCM"),
            (with(32, &3_u16.to_le_bytes()), "its header contradicts itself"),
            (with(24, &1_u32.to_le_bytes()), "cannot turn 1 Hz audio with 1 channels into 24000 Hz mono"),
            (with(22, &[0, 0]), "its header contradicts itself"),
            (endless_header, "its header is too long"),
        ] {
            let error = decode(&file, 1_000).unwrap_err();
            assert_eq!(error, garbled(problem));
        }
    }

    proptest! {
        #[test]
        fn samples_do_not_depend_on_the_pieces(cut in 1usize..300) {
            let file = tone(spec(2, 44_100, 24, SampleFormat::Int));
            let file = &file[..20_000];
            let decode = |cut: usize| {
                let mut decoder = Decoder::new(RATE_HZ);
                file.chunks(cut).flat_map(|piece| decoder.push(piece).unwrap()).collect::<Vec<_>>()
            };

            prop_assert_eq!(decode(cut), decode(20_000));
        }

        #[test]
        fn no_bytes_make_it_panic(
            head in 0usize..60,
            junk in prop::collection::vec(any::<u8>(), 0..200),
            cut in 1usize..50,
        ) {
            let file = [&file(6, &[], &[1, 2, 3])[..head.min(50)], &junk[..]].concat();

            let _ = decode(&file, cut);
        }
    }
}
