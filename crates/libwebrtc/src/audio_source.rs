//! Sound as it goes out.

/// The rate that WebRTC works at unless told otherwise (Hz).
pub const DEFAULT_SAMPLE_RATE: u32 = 48_000;

/// The channels that WebRTC works with unless told otherwise: mono.
pub const DEFAULT_NUM_CHANNELS: u32 = 1;

/// Processing wished for on captured sound. Kept and given back; this crate processes nothing, since sound
/// that a program writes needs none of it.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSourceOptions {
    /// Take the far end's sound out.
    pub echo_cancellation: bool,
    /// Take steady noise out.
    pub noise_suppression: bool,
    /// Even the level out.
    pub auto_gain_control: bool,
}

/// Where the sound of a local track comes from.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub enum RtcAudioSource {
    /// The program writes it.
    Native(native::NativeAudioSource),
    /// A microphone. This crate has no access to devices: a track of it can be made, and publishing it fails.
    Device,
}

impl RtcAudioSource {
    /// Keeps the wish for processing.
    pub fn set_audio_options(&self, options: AudioSourceOptions) {
        match self {
            Self::Native(source) => source.set_audio_options(options),
            Self::Device => {}
        }
    }

    /// The wish for processing.
    pub fn audio_options(&self) -> AudioSourceOptions {
        match self {
            Self::Native(source) => source.audio_options(),
            Self::Device => AudioSourceOptions::default(),
        }
    }

    /// Its rate (Hz).
    pub fn sample_rate(&self) -> u32 {
        match self {
            Self::Native(source) => source.sample_rate(),
            Self::Device => DEFAULT_SAMPLE_RATE,
        }
    }

    /// Its channels.
    pub fn num_channels(&self) -> u32 {
        match self {
            Self::Native(source) => source.num_channels(),
            Self::Device => DEFAULT_NUM_CHANNELS,
        }
    }
}

/// Sources that a program writes.
pub mod native {
    use std::fmt::{self, Debug};
    use std::sync::Arc;

    use super::AudioSourceOptions;
    use crate::RtcError;
    use crate::audio_frame::AudioFrame;
    use crate::driver::source::Source;

    /// A source that a program writes. Clones are the same source; one source may feed several tracks.
    #[derive(Clone)]
    pub struct NativeAudioSource {
        shared: Arc<Source>,
    }

    impl NativeAudioSource {
        /// A source of `num_channels` interleaved channels at `sample_rate` Hz with a queue of
        /// `queue_size_ms`, from which sound goes out at the pace of real time.
        ///
        /// Without a queue (0) what is written goes out as it comes, and the writer has to write 10 ms each
        /// 10 ms.
        ///
        /// # Panics
        /// When `queue_size_ms` is not a multiple of 10, as in the crate whose place this one takes.
        pub fn new(
            options: AudioSourceOptions,
            sample_rate: u32,
            num_channels: u32,
            queue_size_ms: u32,
        ) -> NativeAudioSource {
            assert!(queue_size_ms.is_multiple_of(10), "queue_size_ms must be a multiple of 10");
            Self { shared: Source::new(options, sample_rate, num_channels, queue_size_ms) }
        }

        /// Drops what is queued: whoever speaks falls silent at once. A writer that waits for room is let
        /// go, and what it was about to write is dropped too.
        pub fn clear_buffer(&self) {
            self.shared.clear();
        }

        /// Queues a frame of any length, and waits while the queue has no room for it.
        ///
        /// # Errors
        /// `InvalidState` when the frame's rate or channels are not the source's, its length is not a whole
        /// number of sampling instants, or, without a queue, it is not of 10 ms.
        pub async fn capture_frame(&self, frame: &AudioFrame<'_>) -> Result<(), RtcError> {
            self.shared.capture(frame).await
        }

        /// Keeps the wish for processing.
        pub fn set_audio_options(&self, options: AudioSourceOptions) {
            self.shared.set_options(options);
        }

        /// The wish for processing.
        pub fn audio_options(&self) -> AudioSourceOptions {
            self.shared.options()
        }

        /// Its rate (Hz).
        pub fn sample_rate(&self) -> u32 {
            self.shared.sample_rate()
        }

        /// Its channels.
        pub fn num_channels(&self) -> u32 {
            self.shared.num_channels()
        }

        pub(crate) fn shared(&self) -> &Arc<Source> {
            &self.shared
        }
    }

    impl Debug for NativeAudioSource {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("NativeAudioSource")
                .field("sample_rate", &self.sample_rate())
                .field("num_channels", &self.num_channels())
                .finish_non_exhaustive()
        }
    }
}
