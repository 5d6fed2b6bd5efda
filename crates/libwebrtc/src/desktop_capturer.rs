//! Capture of screens and windows: not available here. A capturer can't be made.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the signatures are those of the crate whose place this takes"
)]

use std::fmt::{self, Display};

/// What is to be captured, and how.
pub struct DesktopCapturerOptions {
    source_type: DesktopCaptureSourceType,
    cursor: bool,
}

/// What is to be captured.
#[derive(Debug, Copy, Clone, PartialEq)]
pub enum DesktopCaptureSourceType {
    /// A screen.
    Screen,
    /// A window.
    Window,
    /// Whatever the system offers.
    #[cfg(any(target_os = "macos", target_os = "linux"))]
    Generic,
}

impl DesktopCapturerOptions {
    /// Capture of a source of this type, without the cursor.
    pub fn new(source_type: DesktopCaptureSourceType) -> Self {
        Self { source_type, cursor: false }
    }

    /// Whether the cursor is to be seen.
    pub fn set_include_cursor(&mut self, include: bool) {
        self.cursor = include;
    }

    /// Whether the system may ask the user what to capture.
    #[cfg(target_os = "macos")]
    pub fn set_sck_system_picker(&mut self, _allow_sck_system_picker: bool) {}
}

/// Captures a screen or a window. There is no value of this type.
pub struct DesktopCapturer {
    never: Never,
}

/// A captured picture. There is no value of this type.
pub struct DesktopFrame {
    never: Never,
}

/// A screen or window. There is no value of this type.
#[derive(Clone)]
pub struct CaptureSource {
    never: Never,
}

#[derive(Clone, Copy)]
enum Never {}

/// Why a picture was not captured.
#[derive(Debug, PartialEq)]
pub enum CaptureError {
    /// The next one may be.
    Temporary,
    /// None will be.
    Permanent,
}

impl DesktopCapturer {
    /// A capturer: `None`, always.
    pub fn new(options: DesktopCapturerOptions) -> Option<Self> {
        let DesktopCapturerOptions { source_type, cursor } = options;
        tracing::error!(?source_type, cursor, "desktop capture is not available in this libwebrtc");
        None
    }

    /// Starts capturing `source`; each frame goes to `callback`.
    pub fn start_capture<T>(&mut self, _source: Option<CaptureSource>, _callback: T)
    where
        T: FnMut(Result<DesktopFrame, CaptureError>) + Send + 'static,
    {
        match self.never {}
    }

    /// Captures one frame.
    pub fn capture_frame(&mut self) {
        match self.never {}
    }

    /// What can be captured.
    pub fn get_source_list(&self) -> Vec<CaptureSource> {
        match self.never {}
    }
}

impl DesktopFrame {
    /// Its width in pixels.
    pub fn width(&self) -> i32 {
        match self.never {}
    }

    /// Its height in pixels.
    pub fn height(&self) -> i32 {
        match self.never {}
    }

    /// Bytes from one line to the next.
    pub fn stride(&self) -> u32 {
        match self.never {}
    }

    /// Where it begins on the desktop, in pixels from the left.
    pub fn left(&self) -> i32 {
        match self.never {}
    }

    /// Where it begins on the desktop, in pixels from the top.
    pub fn top(&self) -> i32 {
        match self.never {}
    }

    /// Its pixels.
    pub fn data(&self) -> &[u8] {
        match self.never {}
    }
}

impl CaptureSource {
    /// The system's number for it.
    pub fn id(&self) -> u64 {
        match self.never {}
    }

    /// Its title.
    pub fn title(&self) -> String {
        match self.never {}
    }

    /// The display it is on.
    pub fn display_id(&self) -> i64 {
        match self.never {}
    }
}

impl Display for CaptureSource {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.never {}
    }
}
