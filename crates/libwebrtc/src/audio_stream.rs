//! Sound as it comes in.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the signatures are those of the crate whose place this takes"
)]

/// Streams of decoded sound.
pub mod native {
    use std::fmt::{self, Debug};
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use tokio_stream::Stream;

    use crate::audio::format::Format;
    use crate::audio::sink::Sink;
    use crate::audio_frame::AudioFrame;
    use crate::audio_track::{Feed, RtcAudioTrack};

    /// Frames of 10 ms that wait for a slow reader unless it asked for more or fewer.
    const DEFAULT_QUEUE_FRAMES: usize = 10;

    /// How a stream is set up.
    #[derive(Clone, Debug, Default)]
    pub struct NativeAudioStreamOptions {
        /// Frames of 10 ms that may wait for the reader. When it is slower than the sound, the oldest are
        /// dropped. `None` means 10; `Some(0)` means without bound, which is for readers that are known to
        /// catch up.
        pub queue_size_frames: Option<usize>,
    }

    /// The sound of a remote track, decoded straight to the asked rate and number of channels, in frames of
    /// 10 ms.
    ///
    /// The stream runs on without gaps: what is lost is concealed, and while the sender is muted or silent
    /// (DTX) there are frames of silence at the pace of real time. It ends when the track does, or when it is
    /// closed. A track that is not remote has nothing to stream: its stream ends at once.
    pub struct NativeAudioStream {
        track: RtcAudioTrack,
        sink: Arc<Sink>,
    }

    impl NativeAudioStream {
        /// Streams `audio_track` at `sample_rate` Hz in `num_channels` interleaved channels.
        ///
        /// Opus decodes to 8, 12, 16, 24 and 48 kHz by itself; other rates from 4 to 192 kHz are resampled. A
        /// stream asked for anything else ends at once.
        pub fn new(audio_track: RtcAudioTrack, sample_rate: i32, num_channels: i32) -> Self {
            let options = NativeAudioStreamOptions::default();
            Self::with_options(audio_track, sample_rate, num_channels, options)
        }

        /// The same, with a queue of another size.
        pub fn with_options(
            audio_track: RtcAudioTrack,
            sample_rate: i32,
            num_channels: i32,
            options: NativeAudioStreamOptions,
        ) -> Self {
            let capacity = match options.queue_size_frames {
                None => Some(DEFAULT_QUEUE_FRAMES),
                Some(0) => None,
                Some(frames) => Some(frames),
            };
            let format = Format::new(sample_rate, num_channels);
            let sink = Arc::new(Sink::new(format.unwrap_or(Format::SPEECH), capacity));
            match (format, audio_track.shared().feed()) {
                (Ok(_), Feed::Remote(sinks)) => sinks.add(&sink),
                (Err(error), _) => {
                    tracing::error!(%error, "audio stream not opened");
                    sink.close();
                }
                (Ok(_), Feed::Source(_) | Feed::Device) => {
                    tracing::error!("audio stream not opened: only remote tracks can be streamed");
                    sink.close();
                }
            }
            Self { track: audio_track, sink }
        }

        /// The track that is streamed.
        pub fn track(&self) -> RtcAudioTrack {
            self.track.clone()
        }

        /// Ends the stream; frames that wait are dropped.
        pub fn close(&mut self) {
            self.sink.close_and_clear();
        }
    }

    impl Stream for NativeAudioStream {
        type Item = AudioFrame<'static>;

        fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.sink.poll_frame(cx)
        }
    }

    impl Drop for NativeAudioStream {
        fn drop(&mut self) {
            self.close();
        }
    }

    impl Debug for NativeAudioStream {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("NativeAudioStream").field("track", &self.track).finish_non_exhaustive()
        }
    }
}
