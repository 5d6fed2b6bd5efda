//! Streams of received video. Video is not implemented: streams end at once.

/// Streams of decoded video frames.
pub mod native {
    use std::fmt::{self, Debug};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio_stream::Stream;

    use crate::native::packet_trailer::PacketTrailerHandler;
    use crate::video_frame::BoxVideoFrame;
    use crate::video_track::RtcVideoTrack;

    /// Options of a [`NativeVideoStream`].
    #[derive(Clone, Debug, Default)]
    pub struct NativeVideoStreamOptions {
        /// Maximum number of queued frames. Ignored.
        pub queue_size_frames: Option<usize>,
    }

    /// The frames of a remote track: an empty stream.
    pub struct NativeVideoStream {
        track: RtcVideoTrack,
    }

    impl NativeVideoStream {
        /// Opens an empty stream of `video_track`, and logs an error.
        pub fn new(video_track: RtcVideoTrack) -> Self {
            tracing::error!(
                track = video_track.id(),
                "video is not available in this libwebrtc: its stream is empty"
            );
            Self { track: video_track }
        }

        /// As [`Self::new`]; the options are ignored.
        pub fn with_options(video_track: RtcVideoTrack, _options: NativeVideoStreamOptions) -> Self {
            Self::new(video_track)
        }

        /// Sets the handler for packet trailers: no effect.
        pub fn set_packet_trailer_handler(&self, _handler: PacketTrailerHandler) {}

        /// The track of this stream.
        pub fn track(&self) -> RtcVideoTrack {
            self.track.clone()
        }

        /// Closes the stream: no effect, since it is empty.
        pub fn close(&mut self) {}
    }

    impl Stream for NativeVideoStream {
        type Item = BoxVideoFrame;

        fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(None)
        }
    }

    impl Debug for NativeVideoStream {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("NativeVideoStream").field("track", &self.track).finish()
        }
    }
}
