//! Creation of peer connections and local tracks.

use std::fmt::{self, Debug};
use std::sync::Arc;

use crate::driver::engine::Engine;
use crate::peer_connection::PeerConnection;
use crate::rtp_parameters::{RtpCapabilities, RtpCodecCapability, RtpHeaderExtensionCapability};
use crate::rtp_transceiver::RtpTransceiverDirection;
use crate::{MediaType, RtcError};

/// A STUN or TURN server.
#[derive(Debug, Clone)]
pub struct IceServer {
    /// URIs with the scheme `stun:`, `turn:` or `turns:` (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// TURN user name.
    pub username: String,
    /// TURN password.
    pub password: String,
}

/// Whether candidates are gathered after the first gathering is complete.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ContinualGatheringPolicy {
    /// Gather once.
    GatherOnce,
    /// Gather continually.
    GatherContinually,
}

/// Kinds of local candidates that are used.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum IceTransportsType {
    /// Relayed candidates only.
    Relay,
    /// Server-reflexive and relayed candidates.
    NoHost,
    /// All candidates.
    All,
}

/// Configuration of a peer connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RtcConfiguration {
    /// STUN and TURN servers.
    pub ice_servers: Vec<IceServer>,
    /// Whether candidates are gathered after the first gathering is complete. Ignored by this crate.
    pub continual_gathering_policy: ContinualGatheringPolicy,
    /// Kinds of local candidates that are used.
    pub ice_transport_type: IceTransportsType,
    /// Whether to include the SCTP handshake in the description (SNAP). Ignored: peers use the regular handshake.
    pub enable_sctp_snap: bool,
}

impl Default for RtcConfiguration {
    fn default() -> Self {
        Self {
            ice_servers: Vec::new(),
            continual_gathering_policy: ContinualGatheringPolicy::GatherContinually,
            ice_transport_type: IceTransportsType::All,
            enable_sctp_snap: false,
        }
    }
}

/// Creates peer connections and local tracks. The media threads run for as long as a factory exists.
#[derive(Clone, Default)]
pub struct PeerConnectionFactory {
    /// Keeps the media threads running between connections; `None` if they could not be started.
    _engine: Option<Arc<Engine>>,
}

impl PeerConnectionFactory {
    /// Creates a factory. The playout delay concerns video only and is ignored.
    pub fn with_zero_playout_delay() -> Self {
        Self::with_options(true, false)
    }

    /// Creates a factory. `zero_playout_delay` (video) and `enable_warp` (DTLS in STUN) are negotiated features that
    /// are not implemented; both are ignored.
    pub fn with_options(_zero_playout_delay: bool, _enable_warp: bool) -> Self {
        Self { _engine: Engine::shared().ok() }
    }

    /// Creates a peer connection.
    ///
    /// # Errors
    /// `Internal` if no socket could be opened or no thread started; `InvalidState` while end-to-end encryption is
    /// requested, see [`crate::native::frame_cryptor`].
    pub fn create_peer_connection(&self, config: RtcConfiguration) -> Result<PeerConnection, RtcError> {
        crate::native::frame_cryptor::ensure_encryption_not_requested()?;
        PeerConnection::start(config)
    }

    /// Send capabilities for a kind of media.
    pub fn get_rtp_sender_capabilities(&self, media_type: MediaType) -> RtpCapabilities {
        match media_type {
            MediaType::Audio => audio_capabilities(),
            MediaType::Video | MediaType::Data | MediaType::Unsupported => no_capabilities(),
        }
    }

    /// Receive capabilities for a kind of media.
    pub fn get_rtp_receiver_capabilities(&self, media_type: MediaType) -> RtpCapabilities {
        self.get_rtp_sender_capabilities(media_type)
    }
}

impl Debug for PeerConnectionFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConnectionFactory").finish_non_exhaustive()
    }
}

fn audio_capabilities() -> RtpCapabilities {
    let opus = |mime_type: &str, fmtp: Option<&str>| RtpCodecCapability {
        channels: Some(2),
        clock_rate: Some(48_000),
        mime_type: mime_type.to_owned(),
        sdp_fmtp_line: fmtp.map(str::to_owned),
    };
    let extension = |uri: &str| RtpHeaderExtensionCapability {
        uri: uri.to_owned(),
        direction: RtpTransceiverDirection::SendRecv,
    };
    RtpCapabilities {
        codecs: vec![opus("audio/opus", Some("minptime=10;useinbandfec=1")), opus("audio/red", None)],
        header_extensions: vec![
            extension("urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
            extension("urn:ietf:params:rtp-hdrext:sdes:mid"),
        ],
    }
}

fn no_capabilities() -> RtpCapabilities {
    RtpCapabilities { codecs: Vec::new(), header_extensions: Vec::new() }
}

/// Functions of factories on native platforms.
pub mod native {
    use super::PeerConnectionFactory;
    use crate::audio_source::native::NativeAudioSource;
    use crate::audio_track::{AudioTrackKind, RtcAudioTrack};
    use crate::video_source::native::NativeVideoSource;
    use crate::video_track::RtcVideoTrack;

    /// Functions of factories on native platforms: creation of local tracks, and access to audio devices.
    ///
    /// Audio devices are not implemented: there are none, and functions that use one return `false`.
    pub trait PeerConnectionFactoryExt {
        /// Creates a video track with the id `label`. Publishing it fails.
        fn create_video_track(&self, label: &str, source: NativeVideoSource) -> RtcVideoTrack;
        /// Creates an audio track with the id `label` from PCM of the application.
        fn create_audio_track(&self, label: &str, source: NativeAudioSource) -> RtcAudioTrack;
        /// Creates an audio track with the id `label` from a microphone. Publishing it fails.
        fn create_device_audio_track(&self, label: &str) -> RtcAudioTrack;

        /// Number of playout devices: 0.
        fn playout_devices(&self) -> i16;
        /// Number of recording devices: 0.
        fn recording_devices(&self) -> i16;
        /// Name of a playout device: empty.
        fn playout_device_name(&self, index: u16) -> String;
        /// Name of a recording device: empty.
        fn recording_device_name(&self, index: u16) -> String;
        /// Id of a playout device: empty.
        fn playout_device_guid(&self, index: u16) -> String;
        /// Id of a recording device: empty.
        fn recording_device_guid(&self, index: u16) -> String;
        /// Selects a playout device by index: returns `false`.
        fn set_playout_device(&self, index: u16) -> bool;
        /// Selects a recording device by index: returns `false`.
        fn set_recording_device(&self, index: u16) -> bool;
        /// Selects a playout device by id: returns `false`.
        fn set_playout_device_by_guid(&self, guid: &str) -> bool;
        /// Selects a recording device by id: returns `false`.
        fn set_recording_device_by_guid(&self, guid: &str) -> bool;

        /// Stops recording: returns `false`.
        fn stop_recording(&self) -> bool;
        /// Initializes recording: returns `false`.
        fn init_recording(&self) -> bool;
        /// Starts recording: returns `false`.
        fn start_recording(&self) -> bool;
        /// Whether recording is initialized: `false`.
        fn recording_is_initialized(&self) -> bool;
        /// Stops playout: returns `false`.
        fn stop_playout(&self) -> bool;
        /// Initializes playout: returns `false`.
        fn init_playout(&self) -> bool;
        /// Starts playout: returns `false`.
        fn start_playout(&self) -> bool;
        /// Whether playout is initialized: `false`.
        fn playout_is_initialized(&self) -> bool;

        /// Whether the hardware has echo cancellation: `false`.
        fn builtin_aec_is_available(&self) -> bool;
        /// Whether the hardware has automatic gain control: `false`.
        fn builtin_agc_is_available(&self) -> bool;
        /// Whether the hardware has noise suppression: `false`.
        fn builtin_ns_is_available(&self) -> bool;
        /// Enables the hardware's echo cancellation: returns `false`.
        fn enable_builtin_aec(&self, enable: bool) -> bool;
        /// Enables the hardware's automatic gain control: returns `false`.
        fn enable_builtin_agc(&self, enable: bool) -> bool;
        /// Enables the hardware's noise suppression: returns `false`.
        fn enable_builtin_ns(&self, enable: bool) -> bool;

        /// Enables recording by the audio device module: no effect.
        fn set_adm_recording_enabled(&self, enabled: bool);
        /// Whether recording by the audio device module is enabled: `false`.
        fn adm_recording_enabled(&self) -> bool;
        /// Enables playout by the audio device module: no effect.
        fn set_adm_playout_enabled(&self, enabled: bool);
        /// Whether playout by the audio device module is enabled: `false`.
        fn adm_playout_enabled(&self) -> bool;

        /// Acquires the platform's audio device module: returns `false`.
        fn acquire_platform_adm(&self) -> bool;
        /// Releases the platform's audio device module: no effect.
        fn release_platform_adm(&self);
        /// Number of references to the platform's audio device module: 0.
        fn platform_adm_ref_count(&self) -> i32;
        /// Whether the platform's audio device module is in use: `false`.
        fn is_platform_adm_active(&self) -> bool;
    }

    impl PeerConnectionFactoryExt for PeerConnectionFactory {
        fn create_video_track(&self, label: &str, _source: NativeVideoSource) -> RtcVideoTrack {
            RtcVideoTrack::new(label.to_owned())
        }

        fn create_audio_track(&self, label: &str, source: NativeAudioSource) -> RtcAudioTrack {
            RtcAudioTrack::new(label.to_owned(), AudioTrackKind::Source(source))
        }

        fn create_device_audio_track(&self, label: &str) -> RtcAudioTrack {
            RtcAudioTrack::new(label.to_owned(), AudioTrackKind::Device)
        }

        fn playout_devices(&self) -> i16 {
            0
        }

        fn recording_devices(&self) -> i16 {
            0
        }

        fn playout_device_name(&self, _index: u16) -> String {
            String::new()
        }

        fn recording_device_name(&self, _index: u16) -> String {
            String::new()
        }

        fn playout_device_guid(&self, _index: u16) -> String {
            String::new()
        }

        fn recording_device_guid(&self, _index: u16) -> String {
            String::new()
        }

        fn set_playout_device(&self, _index: u16) -> bool {
            false
        }

        fn set_recording_device(&self, _index: u16) -> bool {
            false
        }

        fn set_playout_device_by_guid(&self, _guid: &str) -> bool {
            false
        }

        fn set_recording_device_by_guid(&self, _guid: &str) -> bool {
            false
        }

        fn stop_recording(&self) -> bool {
            false
        }

        fn init_recording(&self) -> bool {
            false
        }

        fn start_recording(&self) -> bool {
            false
        }

        fn recording_is_initialized(&self) -> bool {
            false
        }

        fn stop_playout(&self) -> bool {
            false
        }

        fn init_playout(&self) -> bool {
            false
        }

        fn start_playout(&self) -> bool {
            false
        }

        fn playout_is_initialized(&self) -> bool {
            false
        }

        fn builtin_aec_is_available(&self) -> bool {
            false
        }

        fn builtin_agc_is_available(&self) -> bool {
            false
        }

        fn builtin_ns_is_available(&self) -> bool {
            false
        }

        fn enable_builtin_aec(&self, _enable: bool) -> bool {
            false
        }

        fn enable_builtin_agc(&self, _enable: bool) -> bool {
            false
        }

        fn enable_builtin_ns(&self, _enable: bool) -> bool {
            false
        }

        fn set_adm_recording_enabled(&self, _enabled: bool) {}

        fn adm_recording_enabled(&self) -> bool {
            false
        }

        fn set_adm_playout_enabled(&self, _enabled: bool) {}

        fn adm_playout_enabled(&self) -> bool {
            false
        }

        fn acquire_platform_adm(&self) -> bool {
            false
        }

        fn release_platform_adm(&self) {}

        fn platform_adm_ref_count(&self) -> i32 {
            0
        }

        fn is_platform_adm_active(&self) -> bool {
            false
        }
    }
}
