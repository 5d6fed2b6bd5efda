//! Pictures in memory.
//!
//! They can be made, filled, scaled and converted, so that programs that draw compile and run; this crate neither
//! encodes nor decodes them.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the signatures are those of the crate whose place this takes"
)]

use std::fmt::{self, Debug};

use thiserror::Error;

use crate::video_source::VideoResolution;

/// A sink that refused a frame.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The platform's own error.
    #[error("platform error: {0}")]
    Platform(String),
}

/// By how much a picture is to be turned clockwise before it is shown.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum VideoRotation {
    /// Not at all.
    VideoRotation0 = 0,
    /// A quarter.
    VideoRotation90 = 90,
    /// Half.
    VideoRotation180 = 180,
    /// Three quarters.
    VideoRotation270 = 270,
}

/// How a pixel of 32 bits is made up, from the highest byte of a little-endian word to the lowest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum VideoFormatType {
    /// In memory: blue, green, red, alpha.
    ARGB,
    /// In memory: alpha, red, green, blue.
    BGRA,
    /// In memory: red, green, blue, alpha.
    ABGR,
    /// In memory: alpha, blue, green, red.
    RGBA,
}

/// How a buffer's pixels are laid out.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VideoBufferType {
    /// The platform's own.
    Native,
    /// Planes of luma and of halved chroma.
    I420,
    /// The same, with alpha.
    I420A,
    /// Planes of luma and of chroma halved in width.
    I422,
    /// Planes of luma and of full chroma.
    I444,
    /// As I420, with ten bits.
    I010,
    /// A plane of luma, and one of both chroma.
    NV12,
}

/// What an application says about a frame, to be carried behind it.
#[derive(Debug, Clone)]
pub struct FrameMetadata {
    /// When it was captured, in microseconds since the Unix epoch.
    pub user_timestamp: Option<u64>,
    /// The application's number for it.
    pub frame_id: Option<u32>,
    /// Anything else.
    pub user_data: Option<Vec<u8>>,
}

/// The codec of an encoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodedVideoCodec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
    /// RFC 6386.
    VP8,
    /// RFC 9628.
    VP9,
    /// AOMedia Video 1.
    AV1,
}

/// Whether an encoded frame stands by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedFrameType {
    /// It does.
    Key,
    /// It needs those before it.
    Delta,
}

/// An encoded picture.
#[derive(Debug, Clone)]
pub struct EncodedVideoFrame<'a> {
    /// Its codec.
    pub codec: EncodedVideoCodec,
    /// Its bytes.
    pub payload: &'a [u8],
    /// When it was captured, in microseconds.
    pub timestamp_us: i64,
    /// Whether it stands by itself.
    pub frame_type: EncodedFrameType,
    /// Its size.
    pub resolution: VideoResolution,
    /// What is to be carried behind it.
    pub frame_metadata: Option<FrameMetadata>,
}

/// A picture.
#[derive(Debug)]
pub struct VideoFrame<T>
where
    T: AsRef<dyn VideoBuffer>,
{
    /// By how much it is to be turned.
    pub rotation: VideoRotation,
    /// When it was captured, in microseconds.
    pub timestamp_us: i64,
    /// What is to be carried behind it.
    pub frame_metadata: Option<FrameMetadata>,
    /// Its pixels.
    pub buffer: T,
}

impl<T: AsRef<dyn VideoBuffer>> VideoFrame<T> {
    /// A picture of these pixels, captured at 0.
    pub fn new(rotation: VideoRotation, buffer: T) -> Self {
        Self { rotation, timestamp_us: 0, frame_metadata: None, buffer }
    }
}

/// Pixels of any layout.
pub type BoxVideoBuffer = Box<dyn VideoBuffer>;
/// A picture of any layout.
pub type BoxVideoFrame = VideoFrame<BoxVideoBuffer>;

pub(crate) mod internal {
    use super::I420Buffer;

    /// What only this crate's buffers do.
    pub trait BufferSealed: Send + Sync {
        fn to_planes(&self) -> I420Buffer;
    }
}

/// Pixels.
pub trait VideoBuffer: internal::BufferSealed + Debug {
    /// From left to right.
    fn width(&self) -> u32;
    /// From top to bottom.
    fn height(&self) -> u32;
    /// How they are laid out.
    fn buffer_type(&self) -> VideoBufferType;

    /// These pixels, if they are the platform's own.
    fn as_native(&self) -> Option<&native::NativeBuffer> {
        None
    }

    /// These pixels, if they are I420.
    fn as_i420(&self) -> Option<&I420Buffer> {
        None
    }

    /// These pixels, if they are I420A.
    fn as_i420a(&self) -> Option<&I420ABuffer> {
        None
    }

    /// These pixels, if they are I422.
    fn as_i422(&self) -> Option<&I422Buffer> {
        None
    }

    /// These pixels, if they are I444.
    fn as_i444(&self) -> Option<&I444Buffer> {
        None
    }

    /// These pixels, if they are I010.
    fn as_i010(&self) -> Option<&I010Buffer> {
        None
    }

    /// These pixels, if they are NV12.
    fn as_nv12(&self) -> Option<&NV12Buffer> {
        None
    }
}

/// One plane of a picture.
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

    /// The sample at a place, or at the nearest there is.
    fn at(&self, x: u32, y: u32) -> Option<S> {
        let (x, y) = (x.min(self.width.saturating_sub(1)), y.min(self.height.saturating_sub(1)));
        self.samples.get(y as usize * self.stride as usize + x as usize).copied()
    }

    /// Another plane with the sample that `pick` finds for each place.
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

    /// The nearest samples of a picture of another size.
    fn scaled(&self, width: u32, height: u32, empty: S) -> Self {
        let from = |at: u32, of: u32, to: u32| (u64::from(at) * u64::from(of) / u64::from(to.max(1))) as u32;
        Self::map(width, height, empty, |x, y| {
            self.at(from(x, self.width, width), from(y, self.height, height))
        })
    }
}

/// A side of a plane of chroma that has half the samples.
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
            /// A black picture whose planes have these strides, in samples.
            pub fn with_strides(width: u32, height: u32, stride_y: u32, stride_u: u32, stride_v: u32) -> Self {
                let (chroma_width, chroma_height) = $chroma(width, height);
                Self {
                    luma: Plane::new(width, height, stride_y, 0),
                    u: Plane::new(chroma_width, chroma_height, stride_u, $black),
                    v: Plane::new(chroma_width, chroma_height, stride_v, $black),
                }
            }

            /// A black picture.
            pub fn new(width: u32, height: u32) -> Self {
                let (chroma_width, _) = $chroma(width, height);
                Self::with_strides(width, height, width, chroma_width, chroma_width)
            }

            /// The width of its planes of chroma.
            pub fn chroma_width(&self) -> u32 {
                self.u.width
            }

            /// The height of its planes of chroma.
            pub fn chroma_height(&self) -> u32 {
                self.u.height
            }

            /// The strides of its planes, in samples.
            pub fn strides(&self) -> (u32, u32, u32) {
                (self.luma.stride, self.u.stride, self.v.stride)
            }

            /// Its planes.
            pub fn data(&self) -> (&[$sample], &[$sample], &[$sample]) {
                (&self.luma.samples, &self.u.samples, &self.v.samples)
            }

            /// Its planes, to be written.
            pub fn data_mut(&mut self) -> (&mut [$sample], &mut [$sample], &mut [$sample]) {
                (&mut self.luma.samples, &mut self.u.samples, &mut self.v.samples)
            }

            /// The same picture in another size, of the nearest pixels.
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
    /// Planes of luma and of chroma halved both ways.
    I420Buffer, u8, 128, I420, as_i420, |width, height| (half(width), half(height))
);
planar_buffer!(
    /// Planes of luma and of chroma halved in width.
    I422Buffer, u8, 128, I422, as_i422, |width, height| (half(width), height)
);
planar_buffer!(
    /// Planes of luma and of full chroma.
    I444Buffer, u8, 128, I444, as_i444, |width, height| (width, height)
);
planar_buffer!(
    /// As I420, with ten bits in the low bits of each sample.
    I010Buffer, u16, 512, I010, as_i010, |width, height| (half(width), half(height))
);

impl I420Buffer {
    /// A black picture, as [`Self::new`] makes it here too.
    pub fn new_black(width: u32, height: u32) -> Self {
        Self::new(width, height)
    }
}

/// As I420, with a plane of alpha.
pub struct I420ABuffer {
    luma: Plane<u8>,
    u: Plane<u8>,
    v: Plane<u8>,
    alpha: Option<Plane<u8>>,
}

/// The planes of a picture with alpha: luma, both of chroma, alpha.
type AlphaPlanes<'a> = (&'a [u8], &'a [u8], &'a [u8], Option<&'a [u8]>);

impl I420ABuffer {
    /// The width of its planes of chroma.
    pub fn chroma_width(&self) -> u32 {
        self.u.width
    }

    /// The height of its planes of chroma.
    pub fn chroma_height(&self) -> u32 {
        self.u.height
    }

    /// The strides of its planes, in samples.
    pub fn strides(&self) -> (u32, u32, u32, u32) {
        let alpha = self.alpha.as_ref().map_or(0, |alpha| alpha.stride);
        (self.luma.stride, self.u.stride, self.v.stride, alpha)
    }

    /// Its planes.
    pub fn data(&self) -> AlphaPlanes<'_> {
        let alpha = self.alpha.as_ref().map(|alpha| &*alpha.samples);
        (&self.luma.samples, &self.u.samples, &self.v.samples, alpha)
    }

    /// The same picture in another size, of the nearest pixels.
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

/// A plane of luma, and one of both chroma side by side.
pub struct NV12Buffer {
    luma: Plane<u8>,
    /// Its width counts samples, of which there are two per place.
    uv: Plane<u8>,
}

impl NV12Buffer {
    /// A black picture whose planes have these strides, in samples.
    pub fn with_strides(width: u32, height: u32, stride_y: u32, stride_uv: u32) -> Self {
        Self {
            luma: Plane::new(width, height, stride_y, 0),
            uv: Plane::new(half(width) * 2, half(height), stride_uv, 128),
        }
    }

    /// A black picture.
    pub fn new(width: u32, height: u32) -> Self {
        Self::with_strides(width, height, width, half(width) * 2)
    }

    /// The places of chroma in a line.
    pub fn chroma_width(&self) -> u32 {
        self.uv.width / 2
    }

    /// The lines of chroma.
    pub fn chroma_height(&self) -> u32 {
        self.uv.height
    }

    /// The strides of its planes, in samples.
    pub fn strides(&self) -> (u32, u32) {
        (self.luma.stride, self.uv.stride)
    }

    /// Its planes.
    pub fn data(&self) -> (&[u8], &[u8]) {
        (&self.luma.samples, &self.uv.samples)
    }

    /// Its planes, to be written.
    pub fn data_mut(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.luma.samples, &mut self.uv.samples)
    }

    /// The same picture in another size, of the nearest pixels.
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

/// I420 of planes whose chroma is `across` and `down` times as dense as I420's.
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

/// What buffers of native platforms can do.
pub mod native {
    use super::{Debug, I420Buffer, Plane, VideoBuffer, VideoBufferType, VideoFormatType, fmt, internal};
    #[cfg(target_os = "linux")]
    use crate::video_source::VideoResolution;

    /// Pixels that lie with the platform. This crate can't look into them: converted, they are black.
    pub struct NativeBuffer {
        luma: Plane<u8>,
        #[cfg(target_os = "linux")]
        fd: DmaBufFileDescriptor,
    }

    /// The file descriptor of a DMA buffer, borrowed from the caller.
    #[cfg(target_os = "linux")]
    pub type DmaBufFileDescriptor = std::os::fd::RawFd;

    /// How the pixels of a DMA buffer are laid out.
    #[cfg(target_os = "linux")]
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum DmaBufPixelFormat {
        /// A plane of luma, and one of both chroma.
        NV12 = 0,
        /// Planes of luma and of halved chroma.
        YUV420M = 1,
    }

    #[cfg(target_os = "linux")]
    impl NativeBuffer {
        /// Names a DMA buffer, without taking it over.
        pub fn from_dmabuf(
            dmabuf_fd: DmaBufFileDescriptor,
            resolution: VideoResolution,
            _pixel_format: DmaBufPixelFormat,
        ) -> Self {
            let VideoResolution { width, height } = resolution;
            Self { luma: Plane { width, height, stride: width, samples: Vec::new() }, fd: dmabuf_fd }
        }

        /// The DMA buffer.
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

    /// Conversions of buffers.
    pub trait VideoFrameBufferExt: VideoBuffer {
        /// The same picture as I420.
        fn to_i420(&self) -> I420Buffer;
        /// The same picture as pixels of 32 bits, in `dst` of `dst_stride` bytes a line. What has no room in `dst`
        /// is left out.
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
    /// A pixel by ITU-R BT.601, limited range.
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
    fn a_new_picture_is_black() {
        let picture = I420Buffer::new_black(3, 3);
        let mut pixels = vec![9; 3 * 3 * 4];

        picture.to_argb(VideoFormatType::ABGR, &mut pixels, 12, 3, 3);

        assert!(pixels.chunks(4).all(|pixel| pixel == [0, 0, 0, 255]));
    }

    #[test]
    fn a_white_pixel_stays_where_it_is_in_every_layout() {
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
    fn a_picture_scales_to_any_size() {
        let mut picture = I420Buffer::new(4, 4);
        picture.data_mut().0.fill(100);

        let scaled = picture.scale(7, 3);

        assert_eq!((scaled.width(), scaled.height(), scaled.chroma_width()), (7, 3, 4));
        assert!(scaled.data().0.iter().all(|sample| *sample == 100));
        assert_eq!(picture.scale(0, -1).width(), 0);
    }
}
