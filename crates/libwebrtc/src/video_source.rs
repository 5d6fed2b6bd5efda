//! Sources of local video tracks. Video is not implemented: sources reject all frames.

use crate::enum_dispatch;

/// Size of a frame, in pixels.
#[derive(Debug, Clone)]
pub struct VideoResolution {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Default for VideoResolution {
    fn default() -> Self {
        Self { width: 1280, height: 720 }
    }
}

/// Rate control request to an external encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncodedRateControl {
    /// Target bitrate in bits per second.
    pub target_bitrate_bps: u64,
    /// Frame rate in frames per second.
    pub framerate_fps: f64,
}

/// The source of a local video track.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub enum RtcVideoSource {
    /// Frames from the application.
    Native(native::NativeVideoSource),
}

impl RtcVideoSource {
    enum_dispatch!(
        [Native];
        /// Size of the frames.
        pub fn video_resolution(self: &Self) -> VideoResolution;
    );
}

/// Sources with frames from the application.
pub mod native {
    use std::fmt::{self, Debug};

    use super::{EncodedRateControl, VideoResolution};
    use crate::native::packet_trailer::PacketTrailerHandler;
    use crate::video_frame::{EncodedVideoFrame, VideoBuffer, VideoFrame};

    /// A source with frames from the application. It rejects all frames.
    #[derive(Clone, Default)]
    pub struct NativeVideoSource {
        resolution: VideoResolution,
    }

    impl NativeVideoSource {
        /// Creates a source of frames of this size.
        pub fn new(resolution: VideoResolution, _is_screencast: bool) -> Self {
            Self { resolution }
        }

        /// Creates a source of encoded frames of this size.
        pub fn new_encoded(resolution: VideoResolution) -> Self {
            Self { resolution }
        }

        /// Sends a frame: always returns `false`.
        pub fn capture_frame<T: AsRef<dyn VideoBuffer>>(&self, _frame: &VideoFrame<T>) -> bool {
            false
        }

        /// Sends a frame from a DMA buffer: always returns `false`.
        #[cfg(target_os = "linux")]
        #[deprecated(note = "wrap the fd with `NativeBuffer::from_dmabuf` and use `capture_frame` instead")]
        pub fn capture_dmabuf_frame(
            &self,
            _dmabuf_fd: i32,
            _width: u32,
            _height: u32,
            _pixel_format: i32,
            _timestamp_us: i64,
        ) -> bool {
            false
        }

        /// Sends a frame from a DMA buffer with metadata: always returns `false`.
        #[cfg(target_os = "linux")]
        #[deprecated(note = "wrap the fd with `NativeBuffer::from_dmabuf` and use `capture_frame` instead")]
        pub fn capture_dmabuf_frame_with_metadata(
            &self,
            _dmabuf_fd: i32,
            _width: u32,
            _height: u32,
            _pixel_format: i32,
            _timestamp_us: i64,
            _frame_metadata: Option<crate::video_frame::FrameMetadata>,
        ) -> bool {
            false
        }

        /// Sends an encoded frame: always returns `false`.
        pub fn capture_encoded_frame(&self, _frame: &EncodedVideoFrame<'_>) -> bool {
            false
        }

        /// Whether a key frame was requested since the last call: `false`.
        pub fn take_keyframe_request(&self) -> bool {
            false
        }

        /// The rate control request since the last call: `None`.
        pub fn take_rate_control_request(&self) -> Option<EncodedRateControl> {
            None
        }

        /// Sets the handler for packet trailers: no effect.
        pub fn set_packet_trailer_handler(&self, _handler: PacketTrailerHandler) {}

        /// Size of the frames.
        pub fn video_resolution(&self) -> VideoResolution {
            self.resolution.clone()
        }
    }

    impl Debug for NativeVideoSource {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("NativeVideoSource").field("resolution", &self.resolution).finish()
        }
    }
}
