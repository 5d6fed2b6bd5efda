//! Pictures as they would come in. This crate decodes no video: a stream ends at once.

/// Streams of decoded pictures.
pub mod native {
    use std::fmt::{self, Debug};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio_stream::Stream;

    use crate::native::packet_trailer::PacketTrailerHandler;
    use crate::video_frame::BoxVideoFrame;
    use crate::video_track::RtcVideoTrack;

    /// How a stream is set up.
    #[derive(Clone, Debug, Default)]
    pub struct NativeVideoStreamOptions {
        /// Frames that may wait for the reader.
        pub queue_size_frames: Option<usize>,
    }

    /// The pictures of a remote track: none.
    pub struct NativeVideoStream {
        track: RtcVideoTrack,
    }

    impl NativeVideoStream {
        /// Streams `video_track`, and says in the log that nothing will come.
        pub fn new(video_track: RtcVideoTrack) -> Self {
            tracing::error!(
                track = video_track.id(),
                "video is not available in this libwebrtc: its stream is empty"
            );
            Self { track: video_track }
        }

        /// The same.
        pub fn with_options(video_track: RtcVideoTrack, _options: NativeVideoStreamOptions) -> Self {
            Self::new(video_track)
        }

        /// Sets the handler for the trailers of its frames, of which there are none.
        pub fn set_packet_trailer_handler(&self, _handler: PacketTrailerHandler) {}

        /// The track that is streamed.
        pub fn track(&self) -> RtcVideoTrack {
            self.track.clone()
        }

        /// Ends the stream, which has ended already.
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
