//! Capture of screens and windows. Not implemented: [`DesktopCapturer::new`] returns `None`, and the other types cannot
//! be constructed.

#![expect(clippy::needless_pass_by_value, reason = "the signatures are those of the original crate")]

use std::fmt::{self, Display};

/// Options of a [`DesktopCapturer`].
pub struct DesktopCapturerOptions {
    source_type: DesktopCaptureSourceType,
    cursor: bool,
}

/// Kind of source to capture.
#[derive(Debug, Copy, Clone, PartialEq)]
pub enum DesktopCaptureSourceType {
    /// A screen.
    Screen,
    /// A window.
    Window,
    /// Any source that the system offers.
    #[cfg(any(target_os = "macos", target_os = "linux"))]
    Generic,
}

impl DesktopCapturerOptions {
    /// Options for a source of this kind, without the cursor.
    pub fn new(source_type: DesktopCaptureSourceType) -> Self {
        Self { source_type, cursor: false }
    }

    /// Sets whether the cursor is captured.
    pub fn set_include_cursor(&mut self, include: bool) {
        self.cursor = include;
    }

    /// Sets whether the system's picker (`ScreenCaptureKit`) may be shown. No effect.
    #[cfg(target_os = "macos")]
    pub fn set_sck_system_picker(&mut self, _allow_sck_system_picker: bool) {}
}

/// A capturer of a screen or a window. Cannot be constructed.
pub struct DesktopCapturer {
    never: Never,
}

/// A captured frame. Cannot be constructed.
pub struct DesktopFrame {
    never: Never,
}

/// A screen or window. Cannot be constructed.
#[derive(Clone)]
pub struct CaptureSource {
    never: Never,
}

#[derive(Clone, Copy)]
enum Never {}

/// Error of a capture.
#[derive(Debug, PartialEq)]
pub enum CaptureError {
    /// A later capture may succeed.
    Temporary,
    /// No later capture will succeed.
    Permanent,
}

impl DesktopCapturer {
    /// Always returns `None` and logs an error.
    pub fn new(options: DesktopCapturerOptions) -> Option<Self> {
        let DesktopCapturerOptions { source_type, cursor } = options;
        tracing::error!(?source_type, cursor, "desktop capture is not available in this libwebrtc");
        None
    }

    /// Starts to capture `source` and passes each frame to `callback`.
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

    /// The sources that can be captured.
    pub fn get_source_list(&self) -> Vec<CaptureSource> {
        match self.never {}
    }
}

impl DesktopFrame {
    /// Width in pixels.
    pub fn width(&self) -> i32 {
        match self.never {}
    }

    /// Height in pixels.
    pub fn height(&self) -> i32 {
        match self.never {}
    }

    /// Bytes per line.
    pub fn stride(&self) -> u32 {
        match self.never {}
    }

    /// Horizontal position on the desktop, in pixels from the left.
    pub fn left(&self) -> i32 {
        match self.never {}
    }

    /// Vertical position on the desktop, in pixels from the top.
    pub fn top(&self) -> i32 {
        match self.never {}
    }

    /// Pixel data.
    pub fn data(&self) -> &[u8] {
        match self.never {}
    }
}

impl CaptureSource {
    /// Id assigned by the system.
    pub fn id(&self) -> u64 {
        match self.never {}
    }

    /// Title.
    pub fn title(&self) -> String {
        match self.never {}
    }

    /// Id of its display.
    pub fn display_id(&self) -> i64 {
        match self.never {}
    }
}

impl Display for CaptureSource {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.never {}
    }
}
