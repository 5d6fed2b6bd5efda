//! Makes peer connections and local tracks.

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
    /// Where it is: `stun:`, `turn:` or `turns:` (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// The name it knows us by.
    pub username: String,
    /// The password that goes with it.
    pub password: String,
}

/// Whether addresses that come up later are of interest.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum ContinualGatheringPolicy {
    /// No.
    GatherOnce,
    /// Yes.
    GatherContinually,
}

/// Which addresses of our own the peer may learn.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum IceTransportsType {
    /// Only those of TURN servers.
    Relay,
    /// Those that STUN and TURN servers see.
    NoHost,
    /// All.
    All,
}

/// How a connection finds its peer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RtcConfiguration {
    /// The servers to ask for addresses.
    pub ice_servers: Vec<IceServer>,
    /// Whether addresses that come up later are of interest.
    pub continual_gathering_policy: ContinualGatheringPolicy,
    /// Which addresses the peer may learn.
    pub ice_transport_type: IceTransportsType,
    /// Whether to put the SCTP handshake into the description (SNAP). Left out here: peers fall back to the usual
    /// handshake.
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

/// Makes peer connections and local tracks. While there is one, the threads that connections run on stay.
#[derive(Clone, Default)]
pub struct PeerConnectionFactory {
    /// Keeps the threads between connections; `None` if there were none to be had yet.
    _engine: Option<Arc<Engine>>,
}

impl PeerConnectionFactory {
    /// A factory whose connections render video as soon as it arrives. They render none here.
    pub fn with_zero_playout_delay() -> Self {
        Self::with_options(true, false)
    }

    /// A factory with options of video (`zero_playout_delay`) and of the handshake (`enable_warp`: DTLS within
    /// STUN). Both are negotiated, and left out here.
    pub fn with_options(_zero_playout_delay: bool, _enable_warp: bool) -> Self {
        Self { _engine: Engine::shared().ok() }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// `Internal` when the system gives no socket or no thread; `InvalidState` while end-to-end encryption is
    /// asked for, see [`crate::native::frame_cryptor`].
    pub fn create_peer_connection(&self, config: RtcConfiguration) -> Result<PeerConnection, RtcError> {
        crate::native::frame_cryptor::refuse_if_asked_for()?;
        PeerConnection::start(config)
    }

    /// What can be sent of a kind of media.
    pub fn get_rtp_sender_capabilities(&self, media_type: MediaType) -> RtpCapabilities {
        match media_type {
            MediaType::Audio => audio_capabilities(),
            MediaType::Video | MediaType::Data | MediaType::Unsupported => no_capabilities(),
        }
    }

    /// What can be received of a kind of media.
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

/// What factories of native platforms can do.
pub mod native {
    use super::PeerConnectionFactory;
    use crate::audio_source::native::NativeAudioSource;
    use crate::audio_track::{Feed, RtcAudioTrack};
    use crate::video_source::native::NativeVideoSource;
    use crate::video_track::RtcVideoTrack;

    /// What factories of native platforms can do: make tracks of sources, and use the machine's audio devices.
    ///
    /// This crate has no access to devices: there are none, and whatever is asked of them fails.
    pub trait PeerConnectionFactoryExt {
        /// A track of what a program draws. It can't be sent: publishing it fails.
        fn create_video_track(&self, label: &str, source: NativeVideoSource) -> RtcVideoTrack;
        /// A track of what a program says. `label` becomes its id.
        fn create_audio_track(&self, label: &str, source: NativeAudioSource) -> RtcAudioTrack;
        /// A track of a microphone. It can't be sent: publishing it fails.
        fn create_device_audio_track(&self, label: &str) -> RtcAudioTrack;

        /// The number of loudspeakers: 0.
        fn playout_devices(&self) -> i16;
        /// The number of microphones: 0.
        fn recording_devices(&self) -> i16;
        /// The name of a loudspeaker: empty.
        fn playout_device_name(&self, index: u16) -> String;
        /// The name of a microphone: empty.
        fn recording_device_name(&self, index: u16) -> String;
        /// The id of a loudspeaker: empty.
        fn playout_device_guid(&self, index: u16) -> String;
        /// The id of a microphone: empty.
        fn recording_device_guid(&self, index: u16) -> String;
        /// Chooses a loudspeaker: fails.
        fn set_playout_device(&self, index: u16) -> bool;
        /// Chooses a microphone: fails.
        fn set_recording_device(&self, index: u16) -> bool;
        /// Chooses a loudspeaker: fails.
        fn set_playout_device_by_guid(&self, guid: &str) -> bool;
        /// Chooses a microphone: fails.
        fn set_recording_device_by_guid(&self, guid: &str) -> bool;

        /// Stops recording: fails.
        fn stop_recording(&self) -> bool;
        /// Prepares recording: fails.
        fn init_recording(&self) -> bool;
        /// Starts recording: fails.
        fn start_recording(&self) -> bool;
        /// Whether recording is prepared: no.
        fn recording_is_initialized(&self) -> bool;
        /// Stops playing: fails.
        fn stop_playout(&self) -> bool;
        /// Prepares playing: fails.
        fn init_playout(&self) -> bool;
        /// Starts playing: fails.
        fn start_playout(&self) -> bool;
        /// Whether playing is prepared: no.
        fn playout_is_initialized(&self) -> bool;

        /// Whether the hardware cancels echo: no.
        fn builtin_aec_is_available(&self) -> bool;
        /// Whether the hardware controls gain: no.
        fn builtin_agc_is_available(&self) -> bool;
        /// Whether the hardware suppresses noise: no.
        fn builtin_ns_is_available(&self) -> bool;
        /// Has the hardware cancel echo: fails.
        fn enable_builtin_aec(&self, enable: bool) -> bool;
        /// Has the hardware control gain: fails.
        fn enable_builtin_agc(&self, enable: bool) -> bool;
        /// Has the hardware suppress noise: fails.
        fn enable_builtin_ns(&self, enable: bool) -> bool;

        /// Lets the microphone record, or not: nothing comes of it.
        fn set_adm_recording_enabled(&self, enabled: bool);
        /// Whether the microphone may record: no.
        fn adm_recording_enabled(&self) -> bool;
        /// Lets the loudspeakers play, or not: nothing comes of it.
        fn set_adm_playout_enabled(&self, enabled: bool);
        /// Whether the loudspeakers may play: no.
        fn adm_playout_enabled(&self) -> bool;

        /// Takes hold of the machine's audio: fails.
        fn acquire_platform_adm(&self) -> bool;
        /// Lets go of the machine's audio.
        fn release_platform_adm(&self);
        /// How many hold the machine's audio: 0.
        fn platform_adm_ref_count(&self) -> i32;
        /// Whether anyone holds the machine's audio: no.
        fn is_platform_adm_active(&self) -> bool;
    }

    impl PeerConnectionFactoryExt for PeerConnectionFactory {
        fn create_video_track(&self, label: &str, _source: NativeVideoSource) -> RtcVideoTrack {
            RtcVideoTrack::new(label.to_owned())
        }

        fn create_audio_track(&self, label: &str, source: NativeAudioSource) -> RtcAudioTrack {
            RtcAudioTrack::new(label.to_owned(), Feed::Source(source))
        }

        fn create_device_audio_track(&self, label: &str) -> RtcAudioTrack {
            RtcAudioTrack::new(label.to_owned(), Feed::Device)
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
