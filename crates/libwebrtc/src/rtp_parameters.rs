//! Parameters and capabilities of RTP senders and receivers: codecs, header extensions, encodings.
//!
//! The names are those of W3C webrtc-pc §5.

use crate::rtp_transceiver::RtpTransceiverDirection;

/// Priority of an encoding.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum Priority {
    /// Half the weight of `Low`.
    VeryLow,
    /// The default.
    Low,
    /// Twice the weight of `Low`.
    Medium,
    /// Four times the weight of `Low`.
    High,
}

/// What a video sender reduces when bandwidth is insufficient.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Default)]
pub enum DegradationPreference {
    /// Neither; frames are dropped before encoding.
    MaintainFramerateAndResolution,
    /// The resolution.
    MaintainFramerate,
    /// The frame rate.
    MaintainResolution,
    /// Both.
    #[default]
    Balanced,
}

impl DegradationPreference {
    /// Former name of [`Self::MaintainFramerateAndResolution`].
    #[deprecated(since = "0.8.0", note = "use MaintainFramerateAndResolution")]
    #[expect(non_upper_case_globals, reason = "it was a variant in earlier versions")]
    pub const Disabled: Self = Self::MaintainFramerateAndResolution;
}

/// A negotiated RTP header extension (RFC 8285).
#[derive(Debug, Clone)]
pub struct RtpHeaderExtensionParameters {
    /// URI that identifies the extension.
    pub uri: String,
    /// Id in RTP packets.
    pub id: i32,
    /// Whether its value is encrypted (RFC 6904).
    pub encrypted: bool,
}

/// Parameters of an RTP sender or receiver.
#[derive(Debug, Clone, Default)]
pub struct RtpParameters {
    /// Negotiated codecs, in order of preference.
    pub codecs: Vec<RtpCodecParameters>,
    /// Negotiated header extensions.
    pub header_extensions: Vec<RtpHeaderExtensionParameters>,
    /// Encodings of a sender; more than one for simulcast.
    pub encodings: Vec<RtpEncodingParameters>,
    /// RTCP parameters.
    pub rtcp: RtcpParameters,
    degradation_preference: Option<DegradationPreference>,
}

impl RtpParameters {
    /// Sets what a video sender reduces when bandwidth is insufficient.
    pub fn set_degradation_preference(&mut self, preference: DegradationPreference) {
        self.degradation_preference = Some(preference);
    }

    /// What a video sender reduces when bandwidth is insufficient, if set.
    pub fn degradation_preference(&self) -> Option<DegradationPreference> {
        self.degradation_preference
    }
}

/// A negotiated codec.
#[derive(Debug, Clone, Default)]
pub struct RtpCodecParameters {
    /// RTP payload type.
    pub payload_type: u8,
    /// MIME type, for example `audio/opus`.
    pub mime_type: String,
    /// RTP clock rate in Hz.
    pub clock_rate: Option<u64>,
    /// Number of channels; audio only.
    pub channels: Option<u16>,
}

/// RTCP parameters.
#[derive(Debug, Clone, Default)]
pub struct RtcpParameters {
    /// Canonical name of the sender (RFC 3550 §6.5.1).
    pub cname: String,
    /// Whether reduced-size RTCP is used (RFC 5506).
    pub reduced_size: bool,
}

/// One encoding of a track.
#[derive(Debug, Clone)]
pub struct RtpEncodingParameters {
    /// Whether the encoding is sent.
    pub active: bool,
    /// Maximum bitrate in bits per second.
    pub max_bitrate: Option<u64>,
    /// Maximum frame rate in frames per second; video only.
    pub max_framerate: Option<f64>,
    /// Priority; ignored by this crate.
    pub priority: Priority,
    /// RTP stream id for simulcast (RFC 8851).
    pub rid: String,
    /// Divisor of width and height; video only.
    pub scale_resolution_down_by: Option<f64>,
    /// Scalability mode, for example `L3T3_KEY`; video only.
    pub scalability_mode: Option<String>,
    /// Whether `ssrc` is set.
    pub has_ssrc: bool,
    /// Synchronization source (RFC 3550 §3).
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

/// A supported codec.
#[derive(Debug, Clone)]
pub struct RtpCodecCapability {
    /// Number of channels; audio only.
    pub channels: Option<u16>,
    /// RTP clock rate in Hz.
    pub clock_rate: Option<u64>,
    /// MIME type, for example `audio/opus`.
    pub mime_type: String,
    /// Format parameters, as in `a=fmtp` of SDP.
    pub sdp_fmtp_line: Option<String>,
}

/// A supported header extension.
#[derive(Debug, Clone)]
pub struct RtpHeaderExtensionCapability {
    /// URI that identifies the extension.
    pub uri: String,
    /// Directions in which it is supported.
    pub direction: RtpTransceiverDirection,
}

/// Capabilities for one kind of media.
#[derive(Debug, Clone)]
pub struct RtpCapabilities {
    /// Supported codecs, in order of preference.
    pub codecs: Vec<RtpCodecCapability>,
    /// Supported header extensions.
    pub header_extensions: Vec<RtpHeaderExtensionCapability>,
}
