//! How a sender sends and a receiver receives: codecs, header extensions, encodings.
//!
//! The names are those of W3C webrtc-pc §5.

use crate::rtp_transceiver::RtpTransceiverDirection;

/// The importance of one encoding among others.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Priority {
    /// Half the weight of `Low`.
    VeryLow,
    /// The weight that encodings have unless told otherwise.
    Low,
    /// Twice the weight of `Low`.
    Medium,
    /// Four times the weight of `Low`.
    High,
}

/// What a video sender gives up first when the network can't carry all.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub enum DegradationPreference {
    /// Neither frame rate nor resolution: frames are dropped before encoding.
    MaintainFramerateAndResolution,
    /// Resolution.
    MaintainFramerate,
    /// Frame rate.
    MaintainResolution,
    /// Some of both.
    #[default]
    Balanced,
}

impl DegradationPreference {
    /// The old name of [`Self::MaintainFramerateAndResolution`].
    #[deprecated(since = "0.8.0", note = "use MaintainFramerateAndResolution")]
    #[expect(non_upper_case_globals, reason = "it was a variant once and is spelt like one")]
    pub const Disabled: Self = Self::MaintainFramerateAndResolution;
}

/// A negotiated RTP header extension (RFC 8285).
#[derive(Debug, Clone)]
pub struct RtpHeaderExtensionParameters {
    /// What the extension means.
    pub uri: String,
    /// The number that stands for it in packets.
    pub id: i32,
    /// Whether its value is encrypted (RFC 6904).
    pub encrypted: bool,
}

/// How one sender or receiver is set up.
#[derive(Debug, Clone, Default)]
pub struct RtpParameters {
    /// The codecs that may be used, the preferred first.
    pub codecs: Vec<RtpCodecParameters>,
    /// The header extensions in use.
    pub header_extensions: Vec<RtpHeaderExtensionParameters>,
    /// The encodings that are sent; more than one only for simulcast.
    pub encodings: Vec<RtpEncodingParameters>,
    /// How RTCP is used.
    pub rtcp: RtcpParameters,
    degradation_preference: Option<DegradationPreference>,
}

impl RtpParameters {
    /// Sets what a video sender gives up first.
    pub fn set_degradation_preference(&mut self, preference: DegradationPreference) {
        self.degradation_preference = Some(preference);
    }

    /// What a video sender gives up first, if that was set.
    pub fn degradation_preference(&self) -> Option<DegradationPreference> {
        self.degradation_preference
    }
}

/// A negotiated codec.
#[derive(Debug, Clone, Default)]
pub struct RtpCodecParameters {
    /// The number that stands for it in packets.
    pub payload_type: u8,
    /// Such as `audio/opus`.
    pub mime_type: String,
    /// Ticks of its RTP clock per second (Hz).
    pub clock_rate: Option<u64>,
    /// For audio: 1 or 2.
    pub channels: Option<u16>,
}

/// How RTCP is used.
#[derive(Debug, Clone, Default)]
pub struct RtcpParameters {
    /// The canonical name of the sender (RFC 3550 §6.5.1).
    pub cname: String,
    /// Whether reports may be shorter than a compound packet (RFC 5506).
    pub reduced_size: bool,
}

/// One encoding of a track.
#[derive(Debug, Clone)]
pub struct RtpEncodingParameters {
    /// Whether it is sent.
    pub active: bool,
    /// The most it may take, in bits per second.
    pub max_bitrate: Option<u64>,
    /// The most frames per second.
    pub max_framerate: Option<f64>,
    /// Its weight among others.
    pub priority: Priority,
    /// Its name among the encodings of simulcast (RFC 8851).
    pub rid: String,
    /// By how much each side of the picture is divided.
    pub scale_resolution_down_by: Option<f64>,
    /// The layers of a scalable codec, such as `L3T3_KEY`.
    pub scalability_mode: Option<String>,
    /// Whether `ssrc` means something.
    pub has_ssrc: bool,
    /// The synchronization source it is sent with (RFC 3550 §3).
    pub ssrc: u32,
}

impl Default for RtpEncodingParameters {
    fn default() -> Self {
        Self {
            active: true,
            max_bitrate: None,
            max_framerate: None,
            priority: Priority::Low,
            rid: String::new(),
            scale_resolution_down_by: None,
            scalability_mode: None,
            has_ssrc: false,
            ssrc: 0,
        }
    }
}

/// A codec that could be negotiated.
#[derive(Debug, Clone)]
pub struct RtpCodecCapability {
    /// For audio: 1 or 2.
    pub channels: Option<u16>,
    /// Ticks of its RTP clock per second (Hz).
    pub clock_rate: Option<u64>,
    /// Such as `audio/opus`.
    pub mime_type: String,
    /// The parameters as SDP's `a=fmtp` would have them.
    pub sdp_fmtp_line: Option<String>,
}

/// A header extension that could be negotiated.
#[derive(Debug, Clone)]
pub struct RtpHeaderExtensionCapability {
    /// What the extension means.
    pub uri: String,
    /// The direction in which it is understood.
    pub direction: RtpTransceiverDirection,
}

/// What could be negotiated for one kind of media.
#[derive(Debug, Clone)]
pub struct RtpCapabilities {
    /// The codecs, the preferred first.
    pub codecs: Vec<RtpCodecCapability>,
    /// The header extensions.
    pub header_extensions: Vec<RtpHeaderExtensionCapability>,
}
