//! Streams of received audio.

#![expect(clippy::needless_pass_by_value, reason = "the signatures are those of the original crate")]

/// Streams of decoded audio.
pub mod native {
    use std::fmt::{self, Debug};
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use tokio_stream::Stream;

    use crate::audio::format::Format;
    use crate::audio::sink::Sink;
    use crate::audio_frame::AudioFrame;
    use crate::audio_track::{AudioTrackKind, RtcAudioTrack};

    /// Default length of the queue, in frames of 10 ms.
    const DEFAULT_QUEUE_FRAMES: usize = 10;

    /// Options of a [`NativeAudioStream`].
    #[derive(Clone, Debug, Default)]
    pub struct NativeAudioStreamOptions {
        /// Maximum number of queued frames of 10 ms; the oldest are dropped if the reader is too slow. `None` is the
        /// default of 10. `Some(0)` is unbounded, for readers that are known to catch up.
        pub queue_size_frames: Option<usize>,
    }

    /// The audio of a remote track, decoded to the requested rate and number of channels, in frames of 10 ms.
    ///
    /// The stream has no gaps: losses are concealed, and while the sender is muted or silent (DTX) frames of silence
    /// follow in real time. It ends when the track ends or [`Self::close`] is called. The stream of a local track ends
    /// at once.
    pub struct NativeAudioStream {
        track: RtcAudioTrack,
        sink: Arc<Sink>,
    }

    impl NativeAudioStream {
        /// Opens a stream of `audio_track` at `sample_rate` Hz with `num_channels` interleaved channels.
        ///
        /// libopus decodes to 8, 12, 16, 24 and 48 kHz; other rates from 4 to 192 kHz are resampled. Up to 8 channels
        /// are supported. A stream of any other format ends at once, and an error is logged.
        pub fn new(audio_track: RtcAudioTrack, sample_rate: i32, num_channels: i32) -> Self {
            let options = NativeAudioStreamOptions::default();
            Self::with_options(audio_track, sample_rate, num_channels, options)
        }

        /// As [`Self::new`], with options.
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
            match (format, audio_track.shared().kind()) {
                (Ok(_), AudioTrackKind::Remote(sinks)) => sinks.add(&sink),
                (Err(error), _) => {
                    tracing::error!(%error, "failed to open an audio stream");
                    sink.close();
                }
                (Ok(_), AudioTrackKind::Source(_) | AudioTrackKind::Device) => {
                    tracing::error!("failed to open an audio stream: the track is not remote");
                    sink.close();
                }
            }
            Self { track: audio_track, sink }
        }

        /// The track of this stream.
        pub fn track(&self) -> RtcAudioTrack {
            self.track.clone()
        }

        /// Ends the stream and drops the queued frames.
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
