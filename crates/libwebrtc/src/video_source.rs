//! Pictures as they would go out. This crate sends no video: a source takes no frame.

use crate::enum_dispatch;

/// The size of a picture, in pixels.
#[derive(Debug, Clone)]
pub struct VideoResolution {
    /// From left to right.
    pub width: u32,
    /// From top to bottom.
    pub height: u32,
}

impl Default for VideoResolution {
    fn default() -> Self {
        Self { width: 1280, height: 720 }
    }
}

/// What an encoder outside is asked to keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncodedRateControl {
    /// In bits per second.
    pub target_bitrate_bps: u64,
    /// In frames per second.
    pub framerate_fps: f64,
}

/// Where the pictures of a local track come from.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub enum RtcVideoSource {
    /// A program draws them.
    Native(native::NativeVideoSource),
}

impl RtcVideoSource {
    enum_dispatch!(
        [Native];
        /// The size of its pictures.
        pub fn video_resolution(self: &Self) -> VideoResolution;
    );
}

/// Sources that a program draws.
pub mod native {
    use std::fmt::{self, Debug};

    use super::{EncodedRateControl, VideoResolution};
    use crate::native::packet_trailer::PacketTrailerHandler;
    use crate::video_frame::{EncodedVideoFrame, VideoBuffer, VideoFrame};

    /// A source that a program draws. It takes no frame.
    #[derive(Clone, Default)]
    pub struct NativeVideoSource {
        resolution: VideoResolution,
    }

    impl NativeVideoSource {
        /// A source of pictures of this size.
        pub fn new(resolution: VideoResolution, _is_screencast: bool) -> Self {
            Self { resolution }
        }

        /// A source of encoded pictures of this size.
        pub fn new_encoded(resolution: VideoResolution) -> Self {
            Self { resolution }
        }

        /// Takes a frame: no, always.
        pub fn capture_frame<T: AsRef<dyn VideoBuffer>>(&self, _frame: &VideoFrame<T>) -> bool {
            false
        }

        /// Takes a frame that lies in a DMA buffer: no, always.
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

        /// Takes a frame that lies in a DMA buffer, with metadata: no, always.
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

        /// Takes an encoded frame: no, always.
        pub fn capture_encoded_frame(&self, _frame: &EncodedVideoFrame<'_>) -> bool {
            false
        }

        /// Whether a key frame was asked for since this was called last: no.
        pub fn take_keyframe_request(&self) -> bool {
            false
        }

        /// What the encoder was asked to keep to since this was called last: nothing.
        pub fn take_rate_control_request(&self) -> Option<EncodedRateControl> {
            None
        }

        /// Sets the handler for the trailers of its frames, of which there are none.
        pub fn set_packet_trailer_handler(&self, _handler: PacketTrailerHandler) {}

        /// The size of its pictures.
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
