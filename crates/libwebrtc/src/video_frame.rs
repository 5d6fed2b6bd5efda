//! Video frames in memory.
//!
//! Frames can be created, filled, scaled and converted, so that applications that use them compile and run. They are
//! neither encoded nor decoded.

#![expect(clippy::needless_pass_by_value, reason = "the signatures are those of the original crate")]

use std::fmt::{self, Debug};

use thiserror::Error;

use crate::video_source::VideoResolution;

/// Error of a video sink.
#[derive(Debug, Error)]
pub enum SinkError {
    /// An error of the platform.
    #[error("platform error: {0}")]
    Platform(String),
}

/// Clockwise rotation to apply before a frame is displayed.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum VideoRotation {
    /// No rotation.
    VideoRotation0 = 0,
    /// 90 degrees.
    VideoRotation90 = 90,
    /// 180 degrees.
    VideoRotation180 = 180,
    /// 270 degrees.
    VideoRotation270 = 270,
}

/// Format of a 32-bit pixel: components from the most to the least significant byte of a little-endian word.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum VideoFormatType {
    /// Byte order in memory: blue, green, red, alpha.
    ARGB,
    /// Byte order in memory: alpha, red, green, blue.
    BGRA,
    /// Byte order in memory: red, green, blue, alpha.
    ABGR,
    /// Byte order in memory: alpha, blue, green, red.
    RGBA,
}

/// Pixel layout of a buffer.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VideoBufferType {
    /// A platform-specific buffer.
    Native,
    /// Planar YUV 4:2:0, 8 bits.
    I420,
    /// I420 with an alpha plane.
    I420A,
    /// Planar YUV 4:2:2, 8 bits.
    I422,
    /// Planar YUV 4:4:4, 8 bits.
    I444,
    /// Planar YUV 4:2:0, 10 bits.
    I010,
    /// YUV 4:2:0 with a luma plane and an interleaved chroma plane, 8 bits.
    NV12,
}

/// Metadata of a frame, set by the application.
#[derive(Debug, Clone)]
pub struct FrameMetadata {
    /// Capture time in microseconds since the Unix epoch.
    pub user_timestamp: Option<u64>,
    /// Frame id.
    pub frame_id: Option<u32>,
    /// Application data.
    pub user_data: Option<Vec<u8>>,
}

/// Codec of an encoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodedVideoCodec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
    /// VP8 (RFC 6386).
    VP8,
    /// VP9 (RTP payload: RFC 9628).
    VP9,
    /// AOMedia Video 1.
    AV1,
}

/// Type of an encoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedFrameType {
    /// A key frame, decodable on its own.
    Key,
    /// A frame that depends on earlier frames.
    Delta,
}

/// An encoded video frame.
#[derive(Debug, Clone)]
pub struct EncodedVideoFrame<'a> {
    /// Codec.
    pub codec: EncodedVideoCodec,
    /// Encoded data.
    pub payload: &'a [u8],
    /// Capture time in microseconds.
    pub timestamp_us: i64,
    /// Type of the frame.
    pub frame_type: EncodedFrameType,
    /// Size in pixels.
    pub resolution: VideoResolution,
    /// Metadata to send with the frame.
    pub frame_metadata: Option<FrameMetadata>,
}

/// A video frame.
#[derive(Debug)]
pub struct VideoFrame<T>
where
    T: AsRef<dyn VideoBuffer>,
{
    /// Rotation for display.
    pub rotation: VideoRotation,
    /// Capture time in microseconds.
    pub timestamp_us: i64,
    /// Metadata to send with the frame.
    pub frame_metadata: Option<FrameMetadata>,
    /// Pixel buffer.
    pub buffer: T,
}

impl<T: AsRef<dyn VideoBuffer>> VideoFrame<T> {
    /// Creates a frame with the capture time 0.
    pub fn new(rotation: VideoRotation, buffer: T) -> Self {
        Self { rotation, timestamp_us: 0, frame_metadata: None, buffer }
    }
}

/// A buffer of any layout.
pub type BoxVideoBuffer = Box<dyn VideoBuffer>;
/// A frame with a buffer of any layout.
pub type BoxVideoFrame = VideoFrame<BoxVideoBuffer>;

pub(crate) mod internal {
    use super::I420Buffer;

    /// Seals `VideoBuffer` and converts buffers to I420.
    pub trait BufferSealed: Send + Sync {
        fn to_planes(&self) -> I420Buffer;
    }
}

/// A pixel buffer.
pub trait VideoBuffer: internal::BufferSealed + Debug {
    /// Width in pixels.
    fn width(&self) -> u32;
    /// Height in pixels.
    fn height(&self) -> u32;
    /// Pixel layout.
    fn buffer_type(&self) -> VideoBufferType;

    /// This buffer as a platform-specific buffer, if it is one.
    fn as_native(&self) -> Option<&native::NativeBuffer> {
        None
    }

    /// This buffer as I420, if it is.
    fn as_i420(&self) -> Option<&I420Buffer> {
        None
    }

    /// This buffer as I420A, if it is.
    fn as_i420a(&self) -> Option<&I420ABuffer> {
        None
    }

    /// This buffer as I422, if it is.
    fn as_i422(&self) -> Option<&I422Buffer> {
        None
    }

    /// This buffer as I444, if it is.
    fn as_i444(&self) -> Option<&I444Buffer> {
        None
    }

    /// This buffer as I010, if it is.
    fn as_i010(&self) -> Option<&I010Buffer> {
        None
    }

    /// This buffer as NV12, if it is.
    fn as_nv12(&self) -> Option<&NV12Buffer> {
        None
    }
}

/// A plane of a buffer.
#[derive(Clone)]
struct Plane<S> {
    width: u32,
    height: u32,
    stride: u32,
    samples: Vec<S>,
}

impl<S: Copy> Plane<S> {
    fn new(width: u32, height: u32, stride: u32, value: S) -> Self {
        let stride = stride.max(width);
        Self { width, height, stride, samples: vec![value; stride as usize * height as usize] }
    }

    /// The sample at a position, clamped to the plane; `None` if the plane is empty.
    fn at(&self, x: u32, y: u32) -> Option<S> {
        let (x, y) = (x.min(self.width.saturating_sub(1)), y.min(self.height.saturating_sub(1)));
        self.samples.get(y as usize * self.stride as usize + x as usize).copied()
    }

    /// Creates a plane with the sample of `pick` at each position, or `empty` if there is none.
    fn map<T: Copy>(width: u32, height: u32, empty: T, pick: impl Fn(u32, u32) -> Option<T>) -> Plane<T> {
        let mut plane = Plane::new(width, height, width, empty);
        for y in 0..height {
            for x in 0..width {
                if let (Some(sample), Some(place)) =
                    (pick(x, y), plane.samples.get_mut(y as usize * width as usize + x as usize))
                {
                    *place = sample;
                }
            }
        }
        plane
    }

    /// Scales the plane with nearest-neighbour interpolation.
    fn scaled(&self, width: u32, height: u32, empty: S) -> Self {
        let from = |at: u32, of: u32, to: u32| (u64::from(at) * u64::from(of) / u64::from(to.max(1))) as u32;
        Self::map(width, height, empty, |x, y| {
            self.at(from(x, self.width, width), from(y, self.height, height))
        })
    }
}

/// Width or height of a chroma plane subsampled by 2.
fn half(side: u32) -> u32 {
    side.div_ceil(2)
}

fn side(pixels: i32) -> u32 {
    u32::try_from(pixels).unwrap_or(0)
}

macro_rules! planar_buffer {
    ($(#[$doc:meta])* $name:ident, $sample:ty, $black:expr, $variant:ident, $as:ident, $chroma:expr) => {
        $(#[$doc])*
        pub struct $name {
            luma: Plane<$sample>,
            u: Plane<$sample>,
            v: Plane<$sample>,
        }

        impl $name {
            /// Creates a black buffer with these strides, in samples.
            pub fn with_strides(width: u32, height: u32, stride_y: u32, stride_u: u32, stride_v: u32) -> Self {
                let (chroma_width, chroma_height) = $chroma(width, height);
                Self {
                    luma: Plane::new(width, height, stride_y, 0),
                    u: Plane::new(chroma_width, chroma_height, stride_u, $black),
                    v: Plane::new(chroma_width, chroma_height, stride_v, $black),
                }
            }

            /// Creates a black buffer.
            pub fn new(width: u32, height: u32) -> Self {
                let (chroma_width, _) = $chroma(width, height);
                Self::with_strides(width, height, width, chroma_width, chroma_width)
            }

            /// Width of the chroma planes in samples.
            pub fn chroma_width(&self) -> u32 {
                self.u.width
            }

            /// Height of the chroma planes in samples.
            pub fn chroma_height(&self) -> u32 {
                self.u.height
            }

            /// Strides of the planes Y, U and V, in samples.
            pub fn strides(&self) -> (u32, u32, u32) {
                (self.luma.stride, self.u.stride, self.v.stride)
            }

            /// The planes Y, U and V.
            pub fn data(&self) -> (&[$sample], &[$sample], &[$sample]) {
                (&self.luma.samples, &self.u.samples, &self.v.samples)
            }

            /// The planes Y, U and V, mutable.
            pub fn data_mut(&mut self) -> (&mut [$sample], &mut [$sample], &mut [$sample]) {
                (&mut self.luma.samples, &mut self.u.samples, &mut self.v.samples)
            }

            /// Returns a copy scaled with nearest-neighbour interpolation.
            pub fn scale(&mut self, scaled_width: i32, scaled_height: i32) -> Self {
                let (width, height) = (side(scaled_width), side(scaled_height));
                let (chroma_width, chroma_height) = $chroma(width, height);
                Self {
                    luma: self.luma.scaled(width, height, 0),
                    u: self.u.scaled(chroma_width, chroma_height, $black),
                    v: self.v.scaled(chroma_width, chroma_height, $black),
                }
            }
        }

        common_buffer!($name, $variant, $as);
    };
}

macro_rules! common_buffer {
    ($name:ident, $variant:ident, $as:ident) => {
        impl VideoBuffer for $name {
            fn width(&self) -> u32 {
                self.luma.width
            }

            fn height(&self) -> u32 {
                self.luma.height
            }

            fn buffer_type(&self) -> VideoBufferType {
                VideoBufferType::$variant
            }

            fn $as(&self) -> Option<&$name> {
                Some(self)
            }
        }

        impl AsRef<dyn VideoBuffer> for $name {
            fn as_ref(&self) -> &(dyn VideoBuffer + 'static) {
                self
            }
        }

        impl Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("width", &self.width())
                    .field("height", &self.height())
                    .finish()
            }
        }
    };
}

planar_buffer!(
    /// A buffer of planar YUV 4:2:0 with 8 bits.
    I420Buffer, u8, 128, I420, as_i420, |width, height| (half(width), half(height))
);
planar_buffer!(
    /// A buffer of planar YUV 4:2:2 with 8 bits.
    I422Buffer, u8, 128, I422, as_i422, |width, height| (half(width), height)
);
planar_buffer!(
    /// A buffer of planar YUV 4:4:4 with 8 bits.
    I444Buffer, u8, 128, I444, as_i444, |width, height| (width, height)
);
planar_buffer!(
    /// A buffer of planar YUV 4:2:0 with 10 bits, in the low bits of 16-bit samples.
    I010Buffer, u16, 512, I010, as_i010, |width, height| (half(width), half(height))
);

impl I420Buffer {
    /// Creates a black buffer. Same as [`Self::new`] in this crate.
    pub fn new_black(width: u32, height: u32) -> Self {
        Self::new(width, height)
    }
}

/// A buffer of planar YUV 4:2:0 with 8 bits and an alpha plane.
pub struct I420ABuffer {
    luma: Plane<u8>,
    u: Plane<u8>,
    v: Plane<u8>,
    alpha: Option<Plane<u8>>,
}

/// The planes Y, U, V and alpha.
type AlphaPlanes<'a> = (&'a [u8], &'a [u8], &'a [u8], Option<&'a [u8]>);

impl I420ABuffer {
    /// Width of the chroma planes in samples.
    pub fn chroma_width(&self) -> u32 {
        self.u.width
    }

    /// Height of the chroma planes in samples.
    pub fn chroma_height(&self) -> u32 {
        self.u.height
    }

    /// Strides of the planes Y, U, V and alpha, in samples.
    pub fn strides(&self) -> (u32, u32, u32, u32) {
        let alpha = self.alpha.as_ref().map_or(0, |alpha| alpha.stride);
        (self.luma.stride, self.u.stride, self.v.stride, alpha)
    }

    /// The planes Y, U, V and alpha.
    pub fn data(&self) -> AlphaPlanes<'_> {
        let alpha = self.alpha.as_ref().map(|alpha| &*alpha.samples);
        (&self.luma.samples, &self.u.samples, &self.v.samples, alpha)
    }

    /// Returns a copy scaled with nearest-neighbour interpolation.
    pub fn scale(&mut self, scaled_width: i32, scaled_height: i32) -> Self {
        let (width, height) = (side(scaled_width), side(scaled_height));
        Self {
            luma: self.luma.scaled(width, height, 0),
            u: self.u.scaled(half(width), half(height), 128),
            v: self.v.scaled(half(width), half(height), 128),
            alpha: self.alpha.as_ref().map(|alpha| alpha.scaled(width, height, 255)),
        }
    }
}

common_buffer!(I420ABuffer, I420A, as_i420a);

/// A buffer of YUV 4:2:0 with a luma plane and an interleaved chroma plane, 8 bits.
pub struct NV12Buffer {
    luma: Plane<u8>,
    /// The width is in samples, two per chroma position.
    uv: Plane<u8>,
}

impl NV12Buffer {
    /// Creates a black buffer with these strides, in samples.
    pub fn with_strides(width: u32, height: u32, stride_y: u32, stride_uv: u32) -> Self {
        Self {
            luma: Plane::new(width, height, stride_y, 0),
            uv: Plane::new(half(width) * 2, half(height), stride_uv, 128),
        }
    }

    /// Creates a black buffer.
    pub fn new(width: u32, height: u32) -> Self {
        Self::with_strides(width, height, width, half(width) * 2)
    }

    /// Number of chroma positions per line.
    pub fn chroma_width(&self) -> u32 {
        self.uv.width / 2
    }

    /// Number of chroma lines.
    pub fn chroma_height(&self) -> u32 {
        self.uv.height
    }

    /// Strides of the planes Y and UV, in samples.
    pub fn strides(&self) -> (u32, u32) {
        (self.luma.stride, self.uv.stride)
    }

    /// The planes Y and UV.
    pub fn data(&self) -> (&[u8], &[u8]) {
        (&self.luma.samples, &self.uv.samples)
    }

    /// The planes Y and UV, mutable.
    pub fn data_mut(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.luma.samples, &mut self.uv.samples)
    }

    /// Returns a copy scaled with nearest-neighbour interpolation.
    pub fn scale(&mut self, scaled_width: i32, scaled_height: i32) -> Self {
        let (width, height) = (side(scaled_width), side(scaled_height));
        let (from_width, from_height) = (self.chroma_width(), self.chroma_height());
        let (to_width, to_height) = (half(width), half(height));
        let from = |at: u32, of: u32, to: u32| (u64::from(at) * u64::from(of) / u64::from(to.max(1))) as u32;
        let uv = Plane::<u8>::map(to_width * 2, to_height, 128, |x, y| {
            self.uv.at(from(x / 2, from_width, to_width) * 2 + x % 2, from(y, from_height, to_height))
        });
        Self { luma: self.luma.scaled(width, height, 0), uv }
    }
}

common_buffer!(NV12Buffer, NV12, as_nv12);

// --- Conversions --------------------------------------------------------------------------------------

/// Converts planes to I420 by subsampling the chroma planes by `across` horizontally and `down` vertically.
fn thinned(luma: &Plane<u8>, u: &Plane<u8>, v: &Plane<u8>, across: u32, down: u32) -> I420Buffer {
    let (width, height) = (half(luma.width), half(luma.height));
    let thin =
        |plane: &Plane<u8>| Plane::<u8>::map(width, height, 128, |x, y| plane.at(x * across, y * down));
    I420Buffer { luma: luma.clone(), u: thin(u), v: thin(v) }
}

impl internal::BufferSealed for I420Buffer {
    fn to_planes(&self) -> I420Buffer {
        thinned(&self.luma, &self.u, &self.v, 1, 1)
    }
}

impl internal::BufferSealed for I420ABuffer {
    fn to_planes(&self) -> I420Buffer {
        thinned(&self.luma, &self.u, &self.v, 1, 1)
    }
}

impl internal::BufferSealed for I422Buffer {
    fn to_planes(&self) -> I420Buffer {
        thinned(&self.luma, &self.u, &self.v, 1, 2)
    }
}

impl internal::BufferSealed for I444Buffer {
    fn to_planes(&self) -> I420Buffer {
        thinned(&self.luma, &self.u, &self.v, 2, 2)
    }
}

impl internal::BufferSealed for I010Buffer {
    fn to_planes(&self) -> I420Buffer {
        let eight = |plane: &Plane<u16>| {
            Plane::<u16>::map(plane.width, plane.height, 0_u8, |x, y| {
                plane.at(x, y).map(|s| (s >> 2).min(255) as u8)
            })
        };
        I420Buffer { luma: eight(&self.luma), u: eight(&self.u), v: eight(&self.v) }
    }
}

impl internal::BufferSealed for NV12Buffer {
    fn to_planes(&self) -> I420Buffer {
        let every_other = |first: u32| {
            Plane::<u8>::map(self.chroma_width(), self.chroma_height(), 128, |x, y| {
                self.uv.at(x * 2 + first, y)
            })
        };
        I420Buffer { luma: self.luma.clone(), u: every_other(0), v: every_other(1) }
    }
}

/// Platform-specific buffers and conversions.
pub mod native {
    use super::{Debug, I420Buffer, Plane, VideoBuffer, VideoBufferType, VideoFormatType, fmt, internal};
    #[cfg(target_os = "linux")]
    use crate::video_source::VideoResolution;

    /// A platform-specific buffer. Its pixels are not accessible: conversions yield a black buffer.
    pub struct NativeBuffer {
        luma: Plane<u8>,
        #[cfg(target_os = "linux")]
        fd: DmaBufFileDescriptor,
    }

    /// File descriptor of a DMA buffer, borrowed from the caller.
    #[cfg(target_os = "linux")]
    pub type DmaBufFileDescriptor = std::os::fd::RawFd;

    /// Pixel layout of a DMA buffer.
    #[cfg(target_os = "linux")]
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum DmaBufPixelFormat {
        /// YUV 4:2:0 with a luma plane and an interleaved chroma plane.
        NV12 = 0,
        /// Planar YUV 4:2:0.
        YUV420M = 1,
    }

    #[cfg(target_os = "linux")]
    impl NativeBuffer {
        /// Refers to a DMA buffer without taking ownership.
        pub fn from_dmabuf(
            dmabuf_fd: DmaBufFileDescriptor,
            resolution: VideoResolution,
            _pixel_format: DmaBufPixelFormat,
        ) -> Self {
            let VideoResolution { width, height } = resolution;
            Self { luma: Plane { width, height, stride: width, samples: Vec::new() }, fd: dmabuf_fd }
        }

        /// File descriptor of the DMA buffer.
        pub fn get_dmabuf_fd(&self) -> Option<DmaBufFileDescriptor> {
            Some(self.fd)
        }
    }

    common_buffer!(NativeBuffer, Native, as_native);

    impl internal::BufferSealed for NativeBuffer {
        fn to_planes(&self) -> I420Buffer {
            I420Buffer::new_black(self.luma.width, self.luma.height)
        }
    }

    /// Conversions of pixel buffers.
    pub trait VideoFrameBufferExt: VideoBuffer {
        /// Converts to I420.
        fn to_i420(&self) -> I420Buffer;
        /// Converts to 32-bit pixels in `dst`, with `dst_stride` bytes per line. Pixels that do not fit into `dst` are
        /// left out.
        fn to_argb(
            &self,
            format: VideoFormatType,
            dst: &mut [u8],
            dst_stride: u32,
            dst_width: i32,
            dst_height: i32,
        );
    }

    impl<T: VideoBuffer> VideoFrameBufferExt for T {
        fn to_i420(&self) -> I420Buffer {
            self.to_planes()
        }

        fn to_argb(
            &self,
            format: VideoFormatType,
            dst: &mut [u8],
            dst_stride: u32,
            dst_width: i32,
            dst_height: i32,
        ) {
            let planes = self.to_planes();
            let (width, height) = (super::side(dst_width), super::side(dst_height));
            for (y, line) in (0..height).zip(dst.chunks_mut((dst_stride as usize).max(1))) {
                for (x, pixel) in (0..width).zip(line.chunks_exact_mut(4)) {
                    pixel.copy_from_slice(&planes.pixel(x, y, format));
                }
            }
        }
    }
}

impl I420Buffer {
    /// Converts a pixel to RGB (ITU-R BT.601, limited range).
    fn pixel(&self, x: u32, y: u32, format: VideoFormatType) -> [u8; 4] {
        let sample = |plane: &Plane<u8>, x, y, zero: i32| i32::from(plane.at(x, y).unwrap_or(0)) - zero;
        let luma = 298 * sample(&self.luma, x, y, 16);
        let (u, v) = (sample(&self.u, x / 2, y / 2, 128), sample(&self.v, x / 2, y / 2, 128));
        let byte = |value: i32| ((value + 128) >> 8).clamp(0, 255) as u8;
        let (red, green, blue) = (byte(luma + 409 * v), byte(luma - 100 * u - 208 * v), byte(luma + 516 * u));
        match format {
            VideoFormatType::ARGB => [blue, green, red, 255],
            VideoFormatType::BGRA => [255, red, green, blue],
            VideoFormatType::ABGR => [red, green, blue, 255],
            VideoFormatType::RGBA => [255, blue, green, red],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::native::VideoFrameBufferExt;
    use super::*;

    #[test]
    fn a_new_buffer_is_black() {
        let picture = I420Buffer::new_black(3, 3);
        let mut pixels = vec![9; 3 * 3 * 4];

        picture.to_argb(VideoFormatType::ABGR, &mut pixels, 12, 3, 3);

        assert!(pixels.chunks(4).all(|pixel| pixel == [0, 0, 0, 255]));
    }

    #[test]
    fn a_white_pixel_keeps_its_position_in_conversions() {
        let mut nv12 = NV12Buffer::new(4, 2);
        nv12.data_mut().0[5] = 235;
        let mut i444 = I444Buffer::new(4, 2);
        i444.data_mut().0[5] = 235;

        for picture in [nv12.to_i420(), i444.to_i420()] {
            assert_eq!(picture.data().0, [0, 0, 0, 0, 0, 235, 0, 0]);
            assert_eq!(picture.pixel(1, 1, VideoFormatType::ABGR), [255, 255, 255, 255]);
        }
    }

    #[test]
    fn a_buffer_scales_to_any_size() {
        let mut picture = I420Buffer::new(4, 4);
        picture.data_mut().0.fill(100);

        let scaled = picture.scale(7, 3);

        assert_eq!((scaled.width(), scaled.height(), scaled.chroma_width()), (7, 3, 4));
        assert!(scaled.data().0.iter().all(|sample| *sample == 100));
        assert_eq!(picture.scale(0, -1).width(), 0);
    }
}
