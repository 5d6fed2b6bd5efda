//! In what form a spoken response goes to the client: negotiated when it attaches (docs/PROTOCOL.md).

use crate::protocol::edge_v1::{audio::Codec, from_client::SpeechCapabilities};

/// The lengths of a frame, in milliseconds. All are lengths of Opus packets (RFC 6716 §2.1.4).
const FRAME_LENGTHS_MS: [u32; 2] = [20, 60];

/// The encoding of a spoken response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpeechCodec {
    /// Samples at the synthesizer's rate.
    #[default]
    Pcm,
    /// Packets of 24 kHz mono.
    Opus,
}

impl From<SpeechCodec> for Codec {
    fn from(codec: SpeechCodec) -> Self {
        match codec {
            SpeechCodec::Pcm => Self::Pcm16le,
            SpeechCodec::Opus => Self::Opus,
        }
    }
}

/// The form of a spoken response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeechFormat {
    /// Its encoding.
    pub codec: SpeechCodec,
    /// The length of its frames, in milliseconds.
    pub frame_ms: u32,
}

impl Default for SpeechFormat {
    fn default() -> Self {
        Self { codec: SpeechCodec::Pcm, frame_ms: 20 }
    }
}

impl SpeechFormat {
    /// The best that a client takes and the gateway has; and what of its wishes cannot be met.
    pub fn negotiate(wanted: &SpeechCapabilities) -> (Self, Option<String>) {
        let codec = wanted.codecs.iter().find_map(|name| match name.as_str() {
            "opus" => Some(SpeechCodec::Opus),
            // As `capabilities.codecs` has it.
            "pcm16le" | "pcm16" => Some(SpeechCodec::Pcm),
            _ => None,
        });
        let frame_ms = FRAME_LENGTHS_MS.into_iter().find(|ms| *ms == wanted.frame_ms);
        let problem = if codec.is_none() {
            Some("capabilities.speech.codecs: there are opus and pcm16le; pcm16le is sent".to_owned())
        } else if frame_ms.is_none() {
            Some("capabilities.speech.frameMs: must be 20 or 60; 20 is used".to_owned())
        } else {
            None
        };
        let default = Self::default();
        let format =
            Self { codec: codec.unwrap_or_default(), frame_ms: frame_ms.unwrap_or(default.frame_ms) };
        (format, problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(codecs: &[&str], frame_ms: u32) -> (SpeechCodec, u32, bool) {
        let codecs = codecs.iter().map(|name| (*name).to_owned()).collect();
        let (format, problem) = SpeechFormat::negotiate(&SpeechCapabilities { codecs, frame_ms });
        (format.codec, format.frame_ms, problem.is_some())
    }

    #[test]
    fn the_first_codec_that_the_gateway_knows_is_used() {
        assert_eq!(negotiated(&["opus", "pcm16le"], 60), (SpeechCodec::Opus, 60, false));
        assert_eq!(negotiated(&["lc3", "pcm16le", "opus"], 20), (SpeechCodec::Pcm, 20, false));
    }

    #[test]
    fn a_client_that_does_not_ask_gets_pcm_in_frames_of_20_ms() {
        let (format, problem) = SpeechFormat::negotiate(&SpeechCapabilities::default());
        assert_eq!((format, problem), (SpeechFormat { codec: SpeechCodec::Pcm, frame_ms: 20 }, None));
    }

    #[test]
    fn a_wish_that_cannot_be_met_is_a_problem_and_the_default_is_used() {
        assert_eq!(negotiated(&["lc3"], 60), (SpeechCodec::Pcm, 60, true));
        assert_eq!(negotiated(&[], 20), (SpeechCodec::Pcm, 20, true));
        assert_eq!(negotiated(&["opus"], 40), (SpeechCodec::Opus, 20, true));
    }
}
