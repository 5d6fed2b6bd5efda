//! Uses every name of the public API that `livekit` or an application may use, with its type.
//!
//! Compiled against this crate and against the original one by `main.rs`, so that differences are detected. Not
//! executed.

#![allow(dead_code, deprecated, missing_docs, unused_variables, clippy::type_complexity)]

use std::collections::HashMap;
use std::sync::Arc;

use libwebrtc::audio_source::native::NativeAudioSource;
use libwebrtc::audio_stream::native::{NativeAudioStream, NativeAudioStreamOptions};
use libwebrtc::data_channel::{OnBufferedAmountChange, OnMessage, OnStateChange};
use libwebrtc::native::frame_cryptor::{
    DataPacketCryptor, EncryptedPacket, EncryptionAlgorithm, EncryptionState, FrameCryptor,
    KeyDerivationAlgorithm, KeyProvider, KeyProviderOptions,
};
use libwebrtc::native::packet_trailer::{
    PacketTrailerHandler, PublishTimingEvent, PublishTimingObserver, PublishTimingStage,
    SubscribeTimingEvent, SubscribeTimingObserver, SubscribeTimingStage, create_receiver_handler,
    create_sender_handler,
};
use libwebrtc::peer_connection::{
    IceCandidateError, OnConnectionChange, OnDataChannel, OnIceCandidate, OnIceCandidateError,
    OnIceConnectionChange, OnIceGatheringChange, OnNegotiationNeeded, OnSignalingChange, OnTrack, TrackEvent,
};
use libwebrtc::peer_connection_factory::native::PeerConnectionFactoryExt;
use libwebrtc::prelude::*;
use libwebrtc::session_description::SdpParseError;
use libwebrtc::stats::dictionaries as of;
use libwebrtc::stats::*;
use libwebrtc::video_frame::native::{NativeBuffer, VideoFrameBufferExt};
use libwebrtc::video_frame::{
    EncodedFrameType, EncodedVideoCodec, EncodedVideoFrame, FrameMetadata, SinkError,
};
use libwebrtc::video_source::EncodedRateControl;
use libwebrtc::video_source::native::NativeVideoSource;
use libwebrtc::video_stream::native::{NativeVideoStream, NativeVideoStreamOptions};
use tokio_stream::Stream;

/// Fails to compile unless each path has the given type.
macro_rules! is {
    ($($path:expr => $type:ty;)+) => { $(let _: $type = $path;)+ };
}

/// Fails to compile unless each struct has exactly these fields with these types.
macro_rules! fields {
    ($($name:path { $($field:ident: $type:ty),+ $(,)? })+) => {
        $({
            let check = |value: $name| {
                let $name { $($field),+ } = value;
                $(let _: $type = $field;)+
            };
        })+
    };
}

fn errors() {
    fields! {
        RtcError { error_type: RtcErrorType, message: String }
        SdpParseError { line: String, description: String }
    }
    let _ = |error: RtcErrorType| match error {
        RtcErrorType::Internal | RtcErrorType::InvalidSdp | RtcErrorType::InvalidState => {}
    };
    let _ = |media: MediaType| match media {
        MediaType::Audio | MediaType::Video | MediaType::Data | MediaType::Unsupported => {}
    };
    let _ = |error: DataChannelError| match error {
        DataChannelError::Send | DataChannelError::Utf8(_) => {}
    };
    let _ = |error: SinkError| match error {
        SinkError::Platform(_) => {}
    };
    is! { libwebrtc::native::create_random_uuid => fn() -> String; }
}

fn factory() {
    let mut configuration = RtcConfiguration::default();
    configuration.ice_servers =
        vec![IceServer { urls: vec![], username: String::new(), password: String::new() }];
    configuration.continual_gathering_policy = ContinualGatheringPolicy::GatherOnce;
    configuration.continual_gathering_policy = ContinualGatheringPolicy::GatherContinually;
    configuration.ice_transport_type = IceTransportsType::All;
    configuration.enable_sctp_snap = false;
    let _ = |transports: IceTransportsType| match transports {
        IceTransportsType::Relay | IceTransportsType::NoHost | IceTransportsType::All => {}
    };
    type Factory = PeerConnectionFactory;
    is! {
        Factory::default => fn() -> Factory;
        Factory::with_options => fn(bool, bool) -> Factory;
        Factory::with_zero_playout_delay => fn() -> Factory;
        Factory::create_peer_connection => fn(&Factory, RtcConfiguration) -> Result<PeerConnection, RtcError>;
        Factory::get_rtp_sender_capabilities => fn(&Factory, MediaType) -> RtpCapabilities;
        Factory::get_rtp_receiver_capabilities => fn(&Factory, MediaType) -> RtpCapabilities;
        Factory::create_audio_track => fn(&Factory, &str, NativeAudioSource) -> RtcAudioTrack;
        Factory::create_video_track => fn(&Factory, &str, NativeVideoSource) -> RtcVideoTrack;
        Factory::create_device_audio_track => fn(&Factory, &str) -> RtcAudioTrack;
        Factory::playout_devices => fn(&Factory) -> i16;
        Factory::recording_devices => fn(&Factory) -> i16;
        Factory::playout_device_name => fn(&Factory, u16) -> String;
        Factory::recording_device_name => fn(&Factory, u16) -> String;
        Factory::playout_device_guid => fn(&Factory, u16) -> String;
        Factory::recording_device_guid => fn(&Factory, u16) -> String;
        Factory::set_playout_device => fn(&Factory, u16) -> bool;
        Factory::set_recording_device => fn(&Factory, u16) -> bool;
        Factory::set_playout_device_by_guid => fn(&Factory, &str) -> bool;
        Factory::set_recording_device_by_guid => fn(&Factory, &str) -> bool;
        Factory::stop_recording => fn(&Factory) -> bool;
        Factory::init_recording => fn(&Factory) -> bool;
        Factory::start_recording => fn(&Factory) -> bool;
        Factory::recording_is_initialized => fn(&Factory) -> bool;
        Factory::stop_playout => fn(&Factory) -> bool;
        Factory::init_playout => fn(&Factory) -> bool;
        Factory::start_playout => fn(&Factory) -> bool;
        Factory::playout_is_initialized => fn(&Factory) -> bool;
        Factory::builtin_aec_is_available => fn(&Factory) -> bool;
        Factory::builtin_agc_is_available => fn(&Factory) -> bool;
        Factory::builtin_ns_is_available => fn(&Factory) -> bool;
        Factory::enable_builtin_aec => fn(&Factory, bool) -> bool;
        Factory::enable_builtin_agc => fn(&Factory, bool) -> bool;
        Factory::enable_builtin_ns => fn(&Factory, bool) -> bool;
        Factory::set_adm_recording_enabled => fn(&Factory, bool);
        Factory::adm_recording_enabled => fn(&Factory) -> bool;
        Factory::set_adm_playout_enabled => fn(&Factory, bool);
        Factory::adm_playout_enabled => fn(&Factory) -> bool;
        Factory::acquire_platform_adm => fn(&Factory) -> bool;
        Factory::release_platform_adm => fn(&Factory);
        Factory::platform_adm_ref_count => fn(&Factory) -> i32;
        Factory::is_platform_adm_active => fn(&Factory) -> bool;
    }
    fn extended(_: &impl PeerConnectionFactoryExt) {}
    extended(&Factory::default());
}

async fn negotiation(pc: &PeerConnection, candidate: IceCandidate) -> Result<(), RtcError> {
    let options =
        OfferOptions { ice_restart: false, offer_to_receive_audio: true, offer_to_receive_video: false };
    let offer: SessionDescription = pc.create_offer(options).await?;
    let answer: SessionDescription = pc.create_answer(AnswerOptions {}).await?;
    let (): () = pc.set_local_description(offer.clone()).await?;
    let (): () = pc.set_remote_description(answer).await?;
    let (): () = pc.add_ice_candidate(candidate).await?;
    let _: Vec<RtcStats> = pc.get_stats().await?;
    let _: String = offer.to_string();
    Ok(())
}

fn peer_connection() {
    type Pc = PeerConnection;
    is! {
        Pc::set_configuration => fn(&Pc, RtcConfiguration) -> Result<(), RtcError>;
        Pc::set_bitrate => fn(&Pc, BitrateSettings) -> Result<(), RtcError>;
        Pc::create_data_channel => fn(&Pc, &str, DataChannelInit) -> Result<DataChannel, RtcError>;
        Pc::add_track::<String> => fn(&Pc, MediaStreamTrack, &[String]) -> Result<RtpSender, RtcError>;
        Pc::remove_track => fn(&Pc, RtpSender) -> Result<(), RtcError>;
        Pc::add_transceiver => fn(&Pc, MediaStreamTrack, RtpTransceiverInit) -> Result<RtpTransceiver, RtcError>;
        Pc::add_transceiver_for_media => fn(&Pc, MediaType, RtpTransceiverInit) -> Result<RtpTransceiver, RtcError>;
        Pc::close => fn(&Pc);
        Pc::restart_ice => fn(&Pc);
        Pc::connection_state => fn(&Pc) -> PeerConnectionState;
        Pc::ice_connection_state => fn(&Pc) -> IceConnectionState;
        Pc::ice_gathering_state => fn(&Pc) -> IceGatheringState;
        Pc::signaling_state => fn(&Pc) -> SignalingState;
        Pc::current_local_description => fn(&Pc) -> Option<SessionDescription>;
        Pc::current_remote_description => fn(&Pc) -> Option<SessionDescription>;
        Pc::senders => fn(&Pc) -> Vec<RtpSender>;
        Pc::receivers => fn(&Pc) -> Vec<RtpReceiver>;
        Pc::transceivers => fn(&Pc) -> Vec<RtpTransceiver>;
        Pc::on_connection_state_change => fn(&Pc, Option<OnConnectionChange>);
        Pc::on_data_channel => fn(&Pc, Option<OnDataChannel>);
        Pc::on_ice_candidate => fn(&Pc, Option<OnIceCandidate>);
        Pc::on_ice_candidate_error => fn(&Pc, Option<OnIceCandidateError>);
        Pc::on_ice_connection_state_change => fn(&Pc, Option<OnIceConnectionChange>);
        Pc::on_ice_gathering_state_change => fn(&Pc, Option<OnIceGatheringChange>);
        Pc::on_negotiation_needed => fn(&Pc, Option<OnNegotiationNeeded>);
        Pc::on_signaling_state_change => fn(&Pc, Option<OnSignalingChange>);
        Pc::on_track => fn(&Pc, Option<OnTrack>);
    }
    let _: OnConnectionChange = Box::new(|_: PeerConnectionState| {});
    let _: OnDataChannel = Box::new(|_: DataChannel| {});
    let _: OnIceCandidate = Box::new(|_: IceCandidate| {});
    let _: OnIceCandidateError = Box::new(|_: IceCandidateError| {});
    let _: OnIceConnectionChange = Box::new(|_: IceConnectionState| {});
    let _: OnIceGatheringChange = Box::new(|_: IceGatheringState| {});
    let _: OnNegotiationNeeded = Box::new(|_: u32| {});
    let _: OnSignalingChange = Box::new(|_: SignalingState| {});
    let _: OnTrack = Box::new(|_: TrackEvent| {});
    fields! {
        BitrateSettings {
            min_bitrate_bps: Option<u64>,
            start_bitrate_bps: Option<u64>,
            max_bitrate_bps: Option<u64>,
        }
        IceCandidateError { address: String, port: i32, url: String, error_code: i32, error_text: String }
        TrackEvent {
            receiver: RtpReceiver,
            streams: Vec<MediaStream>,
            track: MediaStreamTrack,
            transceiver: RtpTransceiver,
        }
    }
    let _ = |state: PeerConnectionState| match state {
        PeerConnectionState::New
        | PeerConnectionState::Connecting
        | PeerConnectionState::Connected
        | PeerConnectionState::Disconnected
        | PeerConnectionState::Failed
        | PeerConnectionState::Closed => {}
    };
    let _ = |state: IceConnectionState| match state {
        IceConnectionState::New
        | IceConnectionState::Checking
        | IceConnectionState::Connected
        | IceConnectionState::Completed
        | IceConnectionState::Failed
        | IceConnectionState::Disconnected
        | IceConnectionState::Closed
        | IceConnectionState::Max => {}
    };
    let _ = |state: IceGatheringState| match state {
        IceGatheringState::New | IceGatheringState::Gathering | IceGatheringState::Complete => {}
    };
    let _ = |state: SignalingState| match state {
        SignalingState::Stable
        | SignalingState::HaveLocalOffer
        | SignalingState::HaveLocalPrAnswer
        | SignalingState::HaveRemoteOffer
        | SignalingState::HaveRemotePrAnswer
        | SignalingState::Closed => {}
    };
}

fn descriptions() {
    is! {
        SessionDescription::parse => fn(&str, SdpType) -> Result<SessionDescription, SdpParseError>;
        SessionDescription::sdp_type => fn(&SessionDescription) -> SdpType;
        IceCandidate::parse => fn(&str, i32, &str) -> Result<IceCandidate, SdpParseError>;
        IceCandidate::sdp_mid => fn(&IceCandidate) -> String;
        IceCandidate::sdp_mline_index => fn(&IceCandidate) -> i32;
        IceCandidate::candidate => fn(&IceCandidate) -> String;
        <IceCandidate as ToString>::to_string => fn(&IceCandidate) -> String;
        <SdpType as std::str::FromStr>::from_str => fn(&str) -> Result<SdpType, &'static str>;
    }
    let _ = |sdp_type: SdpType| match sdp_type {
        SdpType::Offer | SdpType::PrAnswer | SdpType::Answer | SdpType::Rollback => {}
    };
}

fn channels() {
    fields! {
        DataChannelInit {
            ordered: bool,
            max_retransmit_time: Option<i32>,
            max_retransmits: Option<i32>,
            protocol: String,
            negotiated: bool,
            id: i32,
            priority: Option<Priority>,
        }
    }
    let _ = |DataBuffer { data, binary }: DataBuffer<'_>| (data.len(), binary);
    is! {
        DataChannel::send => fn(&DataChannel, &[u8], bool) -> Result<(), DataChannelError>;
        DataChannel::id => fn(&DataChannel) -> i32;
        DataChannel::label => fn(&DataChannel) -> String;
        DataChannel::state => fn(&DataChannel) -> DataChannelState;
        DataChannel::close => fn(&DataChannel);
        DataChannel::buffered_amount => fn(&DataChannel) -> u64;
        DataChannel::on_state_change => fn(&DataChannel, Option<OnStateChange>);
        DataChannel::on_message => fn(&DataChannel, Option<OnMessage>);
        DataChannel::on_buffered_amount_change => fn(&DataChannel, Option<OnBufferedAmountChange>);
    }
    let _: OnStateChange = Box::new(|_: DataChannelState| {});
    let _: OnMessage = Box::new(|_: DataBuffer<'_>| {});
    let _: OnBufferedAmountChange = Box::new(|_: u64| {});
    let _ = |state: DataChannelState| match state {
        DataChannelState::Connecting
        | DataChannelState::Open
        | DataChannelState::Closing
        | DataChannelState::Closed => {}
    };
}

async fn halves(sender: &RtpSender, receiver: &RtpReceiver) -> Result<(), RtcError> {
    let _: Vec<RtcStats> = sender.get_stats().await?;
    let _: Vec<RtcStats> = receiver.get_stats().await?;
    Ok(())
}

fn transceivers() {
    type Transceiver = RtpTransceiver;
    is! {
        Transceiver::mid => fn(&Transceiver) -> Option<String>;
        Transceiver::direction => fn(&Transceiver) -> RtpTransceiverDirection;
        Transceiver::current_direction => fn(&Transceiver) -> Option<RtpTransceiverDirection>;
        Transceiver::sender => fn(&Transceiver) -> RtpSender;
        Transceiver::receiver => fn(&Transceiver) -> RtpReceiver;
        Transceiver::set_codec_preferences => fn(&Transceiver, Vec<RtpCodecCapability>) -> Result<(), RtcError>;
        Transceiver::stop => fn(&Transceiver) -> Result<(), RtcError>;
        RtpSender::track => fn(&RtpSender) -> Option<MediaStreamTrack>;
        RtpSender::set_track => fn(&RtpSender, Option<MediaStreamTrack>) -> Result<(), RtcError>;
        RtpSender::parameters => fn(&RtpSender) -> RtpParameters;
        RtpSender::set_parameters => fn(&RtpSender, RtpParameters) -> Result<(), RtcError>;
        RtpSender::set_video_encoder_backend => fn(&RtpSender, VideoEncoderBackend);
        RtpReceiver::track => fn(&RtpReceiver) -> Option<MediaStreamTrack>;
        RtpReceiver::streams => fn(&RtpReceiver) -> Vec<MediaStream>;
        RtpReceiver::stream_ids => fn(&RtpReceiver) -> Vec<String>;
        RtpReceiver::parameters => fn(&RtpReceiver) -> RtpParameters;
        MediaStream::id => fn(&MediaStream) -> String;
        MediaStream::audio_tracks => fn(&MediaStream) -> Vec<RtcAudioTrack>;
        MediaStream::video_tracks => fn(&MediaStream) -> Vec<RtcVideoTrack>;
        RtpParameters::set_degradation_preference => fn(&mut RtpParameters, DegradationPreference);
        RtpParameters::degradation_preference => fn(&RtpParameters) -> Option<DegradationPreference>;
    }
    let _: Vec<VideoEncoderBackend> = VideoEncoderBackend::list_available().into_iter().collect();
    let _ = |backend: VideoEncoderBackend| match backend {
        VideoEncoderBackend::Auto
        | VideoEncoderBackend::Software
        | VideoEncoderBackend::Hardware
        | VideoEncoderBackend::Nvenc
        | VideoEncoderBackend::Vaapi
        | VideoEncoderBackend::VideoToolbox
        | VideoEncoderBackend::PreEncoded => {}
        _ => {}
    };
    fields! {
        RtpTransceiverInit {
            direction: RtpTransceiverDirection,
            stream_ids: Vec<String>,
            send_encodings: Vec<RtpEncodingParameters>,
        }
        RtpEncodingParameters {
            active: bool,
            max_bitrate: Option<u64>,
            max_framerate: Option<f64>,
            priority: Priority,
            rid: String,
            scale_resolution_down_by: Option<f64>,
            scalability_mode: Option<String>,
            has_ssrc: bool,
            ssrc: u32,
        }
        RtpCodecCapability {
            channels: Option<u16>,
            clock_rate: Option<u64>,
            mime_type: String,
            sdp_fmtp_line: Option<String>,
        }
        RtpHeaderExtensionCapability { uri: String, direction: RtpTransceiverDirection }
        RtpHeaderExtensionParameters { uri: String, id: i32, encrypted: bool }
        RtpCapabilities { codecs: Vec<RtpCodecCapability>, header_extensions: Vec<RtpHeaderExtensionCapability> }
    }
    let parameters = RtpParameters::default();
    let _: Vec<RtpCodecParameters> = parameters.codecs;
    let _: Vec<RtpHeaderExtensionParameters> = parameters.header_extensions;
    let _: Vec<RtpEncodingParameters> = parameters.encodings;
    let rtcp: RtcpParameters = parameters.rtcp;
    let (_, _): (String, bool) = (rtcp.cname, rtcp.reduced_size);
    let codec = RtpCodecParameters::default();
    let (_, _): (u8, String) = (codec.payload_type, codec.mime_type);
    let (_, _): (Option<u64>, Option<u16>) = (codec.clock_rate, codec.channels);
    let _ = |direction: RtpTransceiverDirection| match direction {
        RtpTransceiverDirection::SendRecv
        | RtpTransceiverDirection::SendOnly
        | RtpTransceiverDirection::RecvOnly
        | RtpTransceiverDirection::Inactive
        | RtpTransceiverDirection::Stopped => {}
    };
    let _ = |preference: DegradationPreference| match preference {
        DegradationPreference::MaintainFramerateAndResolution
        | DegradationPreference::MaintainFramerate
        | DegradationPreference::MaintainResolution
        | DegradationPreference::Balanced => {}
    };
    let _: DegradationPreference = DegradationPreference::Disabled;
    let _ = |priority: Priority| match priority {
        Priority::VeryLow | Priority::Low | Priority::Medium | Priority::High => {}
    };
}

fn tracks() {
    is! {
        MediaStreamTrack::id => fn(&MediaStreamTrack) -> String;
        MediaStreamTrack::enabled => fn(&MediaStreamTrack) -> bool;
        MediaStreamTrack::set_enabled => fn(&MediaStreamTrack, bool) -> bool;
        MediaStreamTrack::state => fn(&MediaStreamTrack) -> RtcTrackState;
        <MediaStreamTrack as From<RtcAudioTrack>>::from => fn(RtcAudioTrack) -> MediaStreamTrack;
        <MediaStreamTrack as From<RtcVideoTrack>>::from => fn(RtcVideoTrack) -> MediaStreamTrack;
        RtcAudioTrack::id => fn(&RtcAudioTrack) -> String;
        RtcAudioTrack::enabled => fn(&RtcAudioTrack) -> bool;
        RtcAudioTrack::set_enabled => fn(&RtcAudioTrack, bool) -> bool;
        RtcAudioTrack::state => fn(&RtcAudioTrack) -> RtcTrackState;
        RtcVideoTrack::id => fn(&RtcVideoTrack) -> String;
        RtcVideoTrack::enabled => fn(&RtcVideoTrack) -> bool;
        RtcVideoTrack::set_enabled => fn(&RtcVideoTrack, bool) -> bool;
        RtcVideoTrack::state => fn(&RtcVideoTrack) -> RtcTrackState;
        RtcVideoTrack::set_packet_trailer_handler => fn(&RtcVideoTrack, PacketTrailerHandler);
        RtcVideoTrack::packet_trailer_handler => fn(&RtcVideoTrack) -> Option<PacketTrailerHandler>;
    }
    let _ = |track: MediaStreamTrack| match track {
        MediaStreamTrack::Video(RtcVideoTrack { .. }) | MediaStreamTrack::Audio(RtcAudioTrack { .. }) => {}
    };
    let _ = |state: RtcTrackState| match state {
        RtcTrackState::Live | RtcTrackState::Ended => {}
    };
}

async fn writing(source: &NativeAudioSource, frame: &AudioFrame<'_>) -> Result<(), RtcError> {
    source.capture_frame(frame).await
}

fn audio() {
    is! {
        NativeAudioSource::new => fn(AudioSourceOptions, u32, u32, u32) -> NativeAudioSource;
        NativeAudioSource::clear_buffer => fn(&NativeAudioSource);
        NativeAudioSource::set_audio_options => fn(&NativeAudioSource, AudioSourceOptions);
        NativeAudioSource::audio_options => fn(&NativeAudioSource) -> AudioSourceOptions;
        NativeAudioSource::sample_rate => fn(&NativeAudioSource) -> u32;
        NativeAudioSource::num_channels => fn(&NativeAudioSource) -> u32;
        RtcAudioSource::set_audio_options => fn(&RtcAudioSource, AudioSourceOptions);
        RtcAudioSource::audio_options => fn(&RtcAudioSource) -> AudioSourceOptions;
        RtcAudioSource::sample_rate => fn(&RtcAudioSource) -> u32;
        RtcAudioSource::num_channels => fn(&RtcAudioSource) -> u32;
        libwebrtc::audio_source::DEFAULT_SAMPLE_RATE => u32;
        libwebrtc::audio_source::DEFAULT_NUM_CHANNELS => u32;
        NativeAudioStream::new => fn(RtcAudioTrack, i32, i32) -> NativeAudioStream;
        NativeAudioStream::with_options => fn(RtcAudioTrack, i32, i32, NativeAudioStreamOptions) -> NativeAudioStream;
        NativeAudioStream::track => fn(&NativeAudioStream) -> RtcAudioTrack;
        NativeAudioStream::close => fn(&mut NativeAudioStream);
        AudioFrame::new => fn(u32, u32, u32) -> AudioFrame<'static>;
    }
    fn frames(_: impl Stream<Item = AudioFrame<'static>> + Unpin + Send) {}
    let _ = |stream: NativeAudioStream| frames(stream);
    let _ = |source: RtcAudioSource| match source {
        RtcAudioSource::Native(_) | RtcAudioSource::Device => {}
        _ => {}
    };
    fields! {
        AudioSourceOptions { echo_cancellation: bool, noise_suppression: bool, auto_gain_control: bool }
        NativeAudioStreamOptions { queue_size_frames: Option<usize> }
    }
    let _ = AudioFrame { data: vec![0_i16].into(), sample_rate: 1, num_channels: 1, samples_per_channel: 1 };
}

fn video() {
    is! {
        NativeVideoSource::new => fn(VideoResolution, bool) -> NativeVideoSource;
        NativeVideoSource::new_encoded => fn(VideoResolution) -> NativeVideoSource;
        NativeVideoSource::capture_frame::<I420Buffer> => fn(&NativeVideoSource, &VideoFrame<I420Buffer>) -> bool;
        NativeVideoSource::capture_encoded_frame => fn(&NativeVideoSource, &EncodedVideoFrame<'_>) -> bool;
        NativeVideoSource::take_keyframe_request => fn(&NativeVideoSource) -> bool;
        NativeVideoSource::take_rate_control_request => fn(&NativeVideoSource) -> Option<EncodedRateControl>;
        NativeVideoSource::set_packet_trailer_handler => fn(&NativeVideoSource, PacketTrailerHandler);
        NativeVideoSource::video_resolution => fn(&NativeVideoSource) -> VideoResolution;
        RtcVideoSource::video_resolution => fn(&RtcVideoSource) -> VideoResolution;
        NativeVideoStream::new => fn(RtcVideoTrack) -> NativeVideoStream;
        NativeVideoStream::with_options => fn(RtcVideoTrack, NativeVideoStreamOptions) -> NativeVideoStream;
        NativeVideoStream::set_packet_trailer_handler => fn(&NativeVideoStream, PacketTrailerHandler);
        NativeVideoStream::track => fn(&NativeVideoStream) -> RtcVideoTrack;
        NativeVideoStream::close => fn(&mut NativeVideoStream);
        VideoFrame::<I420Buffer>::new => fn(VideoRotation, I420Buffer) -> VideoFrame<I420Buffer>;
        I420Buffer::new => fn(u32, u32) -> I420Buffer;
        I420Buffer::new_black => fn(u32, u32) -> I420Buffer;
        I420Buffer::with_strides => fn(u32, u32, u32, u32, u32) -> I420Buffer;
        I420Buffer::chroma_width => fn(&I420Buffer) -> u32;
        I420Buffer::strides => fn(&I420Buffer) -> (u32, u32, u32);
        I420Buffer::scale => fn(&mut I420Buffer, i32, i32) -> I420Buffer;
        I422Buffer::new => fn(u32, u32) -> I422Buffer;
        I444Buffer::new => fn(u32, u32) -> I444Buffer;
        I010Buffer::new => fn(u32, u32) -> I010Buffer;
        NV12Buffer::new => fn(u32, u32) -> NV12Buffer;
        NV12Buffer::strides => fn(&NV12Buffer) -> (u32, u32);
        I420ABuffer::strides => fn(&I420ABuffer) -> (u32, u32, u32, u32);
        <I444Buffer as VideoFrameBufferExt>::to_i420 => fn(&I444Buffer) -> I420Buffer;
        <I420Buffer as VideoFrameBufferExt>::to_argb => fn(&I420Buffer, VideoFormatType, &mut [u8], u32, i32, i32);
        <NativeBuffer as VideoBuffer>::buffer_type => fn(&NativeBuffer) -> VideoBufferType;
    }
    let _ = |mut buffer: I420Buffer| {
        let (_, _, _): (&[u8], &[u8], &[u8]) = buffer.data();
        let (_, _, _): (&mut [u8], &mut [u8], &mut [u8]) = buffer.data_mut();
    };
    let _ = |mut buffer: I010Buffer| {
        let (_, _, _): (&[u16], &[u16], &[u16]) = buffer.data();
        let (_, _, _): (&mut [u16], &mut [u16], &mut [u16]) = buffer.data_mut();
    };
    let _ = |mut buffer: NV12Buffer| {
        let (_, _): (&[u8], &[u8]) = buffer.data();
        let (_, _): (&mut [u8], &mut [u8]) = buffer.data_mut();
    };
    let _ = |frame: BoxVideoFrame| {
        let buffer: BoxVideoBuffer = frame.buffer;
        let (_, _): (u32, u32) = (buffer.width(), buffer.height());
        let _: Option<&I420Buffer> = buffer.as_i420();
        let _: Option<&I420ABuffer> = buffer.as_i420a();
        let _: Option<&I422Buffer> = buffer.as_i422();
        let _: Option<&I444Buffer> = buffer.as_i444();
        let _: Option<&I010Buffer> = buffer.as_i010();
        let _: Option<&NV12Buffer> = buffer.as_nv12();
        let _: Option<&NativeBuffer> = buffer.as_native();
    };
    fn pictures(_: impl Stream<Item = BoxVideoFrame>) {}
    let _ = |stream: NativeVideoStream| pictures(stream);
    let _ = |buffer: VideoBufferType| match buffer {
        VideoBufferType::Native
        | VideoBufferType::I420
        | VideoBufferType::I420A
        | VideoBufferType::I422
        | VideoBufferType::I444
        | VideoBufferType::I010
        | VideoBufferType::NV12 => {}
        _ => {}
    };
    let _ = |rotation: VideoRotation| match rotation {
        VideoRotation::VideoRotation0
        | VideoRotation::VideoRotation90
        | VideoRotation::VideoRotation180
        | VideoRotation::VideoRotation270 => {}
    };
    let _ = |format: VideoFormatType| match format {
        VideoFormatType::ARGB | VideoFormatType::BGRA | VideoFormatType::ABGR | VideoFormatType::RGBA => {}
    };
    let _ = |codec: EncodedVideoCodec| match codec {
        EncodedVideoCodec::H264
        | EncodedVideoCodec::H265
        | EncodedVideoCodec::VP8
        | EncodedVideoCodec::VP9
        | EncodedVideoCodec::AV1 => {}
        _ => {}
    };
    let _ = |frame: EncodedFrameType| match frame {
        EncodedFrameType::Key | EncodedFrameType::Delta => {}
    };
    let _ = EncodedVideoFrame {
        codec: EncodedVideoCodec::VP8,
        payload: &[],
        timestamp_us: 0_i64,
        frame_type: EncodedFrameType::Key,
        resolution: VideoResolution::default(),
        frame_metadata: None,
    };
    fields! {
        VideoResolution { width: u32, height: u32 }
        EncodedRateControl { target_bitrate_bps: u64, framerate_fps: f64 }
        NativeVideoStreamOptions { queue_size_frames: Option<usize> }
        FrameMetadata { user_timestamp: Option<u64>, frame_id: Option<u32>, user_data: Option<Vec<u8>> }
    }
}

fn encryption() {
    type Handled = Option<libwebrtc::native::frame_cryptor::OnStateChange>;
    is! {
        KeyProvider::new => fn(KeyProviderOptions) -> KeyProvider;
        KeyProvider::set_shared_key => fn(&KeyProvider, i32, Vec<u8>) -> bool;
        KeyProvider::ratchet_shared_key => fn(&KeyProvider, i32) -> Option<Vec<u8>>;
        KeyProvider::get_shared_key => fn(&KeyProvider, i32) -> Option<Vec<u8>>;
        KeyProvider::set_key => fn(&KeyProvider, String, i32, Vec<u8>) -> bool;
        KeyProvider::ratchet_key => fn(&KeyProvider, String, i32) -> Option<Vec<u8>>;
        KeyProvider::get_key => fn(&KeyProvider, String, i32) -> Option<Vec<u8>>;
        KeyProvider::set_sif_trailer => fn(&KeyProvider, Vec<u8>);
        FrameCryptor::new_for_rtp_sender =>
            fn(&PeerConnectionFactory, String, EncryptionAlgorithm, KeyProvider, RtpSender) -> FrameCryptor;
        FrameCryptor::new_for_rtp_receiver =>
            fn(&PeerConnectionFactory, String, EncryptionAlgorithm, KeyProvider, RtpReceiver) -> FrameCryptor;
        FrameCryptor::set_enabled => fn(&FrameCryptor, bool);
        FrameCryptor::enabled => fn(&FrameCryptor) -> bool;
        FrameCryptor::set_key_index => fn(&FrameCryptor, i32);
        FrameCryptor::key_index => fn(&FrameCryptor) -> i32;
        FrameCryptor::participant_id => fn(&FrameCryptor) -> String;
        FrameCryptor::on_state_change => fn(&FrameCryptor, Handled);
        FrameCryptor::set_packet_trailer_handler => fn(&FrameCryptor, &PacketTrailerHandler);
        DataPacketCryptor::new => fn(EncryptionAlgorithm, KeyProvider) -> DataPacketCryptor;
        DataPacketCryptor::encrypt =>
            fn(&DataPacketCryptor, &str, u32, &[u8]) -> Result<EncryptedPacket, Box<dyn std::error::Error>>;
        DataPacketCryptor::decrypt =>
            fn(&DataPacketCryptor, &str, &EncryptedPacket) -> Result<Vec<u8>, Box<dyn std::error::Error>>;
    }
    fields! {
        EncryptedPacket { data: Vec<u8>, iv: Vec<u8>, key_index: u32 }
        KeyProviderOptions {
            shared_key: bool,
            ratchet_window_size: i32,
            ratchet_salt: Vec<u8>,
            failure_tolerance: i32,
            key_ring_size: i32,
            key_derivation_algorithm: KeyDerivationAlgorithm,
        }
    }
    let _ = |state: EncryptionState| match state {
        EncryptionState::New
        | EncryptionState::Ok
        | EncryptionState::EncryptionFailed
        | EncryptionState::DecryptionFailed
        | EncryptionState::MissingKey
        | EncryptionState::KeyRatcheted
        | EncryptionState::InternalError => {}
    };
    let _ = |algorithm: EncryptionAlgorithm| match algorithm {
        EncryptionAlgorithm::AesGcm | EncryptionAlgorithm::AesCbc => {}
    };
    let _ = |algorithm: KeyDerivationAlgorithm| match algorithm {
        KeyDerivationAlgorithm::PBKDF2 | KeyDerivationAlgorithm::HKDF => {}
        _ => {}
    };
}

fn trailers() {
    type Handler = PacketTrailerHandler;
    is! {
        create_sender_handler => fn(&PeerConnectionFactory, &RtpSender) -> Handler;
        create_receiver_handler => fn(&PeerConnectionFactory, &RtpReceiver) -> Handler;
        Handler::set_enabled => fn(&Handler, bool);
        Handler::enabled => fn(&Handler) -> bool;
        Handler::lookup_frame_metadata => fn(&Handler, u32) -> Option<(u64, u32, Vec<u8>)>;
        Handler::store_frame_metadata => fn(&Handler, i64, u64, u32, &[u8]);
        Handler::set_publish_timing_observer => fn(&Handler, Option<PublishTimingObserver>);
        Handler::set_subscribe_timing_observer => fn(&Handler, Option<SubscribeTimingObserver>);
    }
    let _: PublishTimingObserver = Arc::new(|_: PublishTimingEvent| {});
    let _: SubscribeTimingObserver = Arc::new(|_: SubscribeTimingEvent| {});
    fields! {
        PublishTimingEvent {
            stage: PublishTimingStage,
            timestamp_us: u64,
            capture_timestamp_us: u64,
            frame_id: Option<u32>,
        }
        SubscribeTimingEvent {
            stage: SubscribeTimingStage,
            timestamp_us: u64,
            capture_timestamp_us: u64,
            frame_id: Option<u32>,
        }
    }
}

#[cfg(target_os = "linux")]
fn desktop() {
    use libwebrtc::desktop_capturer::{
        CaptureError, CaptureSource, DesktopCaptureSourceType, DesktopCapturer, DesktopCapturerOptions,
        DesktopFrame,
    };
    is! {
        DesktopCapturerOptions::new => fn(DesktopCaptureSourceType) -> DesktopCapturerOptions;
        DesktopCapturerOptions::set_include_cursor => fn(&mut DesktopCapturerOptions, bool);
        DesktopCapturer::new => fn(DesktopCapturerOptions) -> Option<DesktopCapturer>;
        DesktopCapturer::capture_frame => fn(&mut DesktopCapturer);
        DesktopCapturer::get_source_list => fn(&DesktopCapturer) -> Vec<CaptureSource>;
        DesktopFrame::width => fn(&DesktopFrame) -> i32;
        DesktopFrame::height => fn(&DesktopFrame) -> i32;
        DesktopFrame::stride => fn(&DesktopFrame) -> u32;
        DesktopFrame::left => fn(&DesktopFrame) -> i32;
        DesktopFrame::top => fn(&DesktopFrame) -> i32;
        CaptureSource::id => fn(&CaptureSource) -> u64;
        CaptureSource::title => fn(&CaptureSource) -> String;
        CaptureSource::display_id => fn(&CaptureSource) -> i64;
    }
    let _ = |capturer: &mut DesktopCapturer| {
        capturer.start_capture(None, |_: Result<DesktopFrame, CaptureError>| {});
    };
}

struct Pet;

impl Pet {
    fn says(&self, times: u32) -> u32 {
        times
    }
}

enum Pets {
    Cat(Pet),
    Dog(Pet),
}

impl Pets {
    libwebrtc::enum_dispatch!(
        [Cat, Dog];
        pub fn says(self: &Self, times: u32) -> u32;
    );
}

fn reports() {
    let _ = |stats: RtcStats| match stats {
        RtcStats::Codec(CodecStats { rtc: of::RtcStats { .. }, codec: of::CodecStats { .. } })
        | RtcStats::MediaPlayout(MediaPlayoutStats { audio_playout: of::AudioPlayoutStats { .. }, .. })
        | RtcStats::PeerConnection(PeerConnectionStats { pc: of::PeerConnectionStats { .. }, .. })
        | RtcStats::DataChannel(DataChannelStats { dc: of::DataChannelStats { .. }, .. })
        | RtcStats::Transport(TransportStats { transport: of::TransportStats { .. }, .. })
        | RtcStats::CandidatePair(CandidatePairStats {
            candidate_pair: of::CandidatePairStats { .. }, ..
        })
        | RtcStats::LocalCandidate(LocalCandidateStats {
            local_candidate: of::IceCandidateStats { .. },
            ..
        })
        | RtcStats::RemoteCandidate(RemoteCandidateStats {
            remote_candidate: of::IceCandidateStats { .. },
            ..
        })
        | RtcStats::Certificate(CertificateStats { certificate: of::CertificateStats { .. }, .. })
        | RtcStats::Stream(StreamStats { stream: of::StreamStats { .. }, .. })
        | RtcStats::Track => {}
        RtcStats::InboundRtp(InboundRtpStats { rtc, stream, received, inbound }) => {}
        RtcStats::OutboundRtp(OutboundRtpStats { rtc, stream, sent, outbound }) => {}
        RtcStats::RemoteInboundRtp(RemoteInboundRtpStats { rtc, stream, received, remote_inbound }) => {}
        RtcStats::RemoteOutboundRtp(RemoteOutboundRtpStats { rtc, stream, sent, remote_outbound }) => {}
        RtcStats::MediaSource(MediaSourceStats { rtc, source, audio, video }) => {}
    };
    fields! {
        of::RtcStats {
            id: String,
            timestamp: i64,
        }
        of::CodecStats {
            payload_type: u32,
            transport_id: String,
            mime_type: String,
            clock_rate: u32,
            channels: u32,
            sdp_fmtp_line: String,
        }
        of::RtpStreamStats {
            ssrc: u32,
            kind: String,
            transport_id: String,
            codec_id: String,
        }
        of::ReceivedRtpStreamStats {
            packets_received: u64,
            packets_lost: i64,
            jitter: f64,
        }
        of::InboundRtpStreamStats {
            track_identifier: String,
            mid: String,
            remote_id: String,
            frames_decoded: u32,
            key_frames_decoded: u32,
            frames_rendered: u32,
            frames_dropped: u32,
            frame_width: u32,
            frame_height: u32,
            frames_per_second: f64,
            qp_sum: u64,
            total_decode_time: f64,
            total_inter_frame_delay: f64,
            total_squared_inter_frame_delay: f64,
            pause_count: u32,
            total_pause_duration: f64,
            freeze_count: u32,
            total_freeze_duration: f64,
            last_packet_received_timestamp: f64,
            header_bytes_received: u64,
            packets_discarded: u64,
            fec_bytes_received: u64,
            fec_packets_received: u64,
            fec_packets_discarded: u64,
            bytes_received: u64,
            nack_count: u32,
            fir_count: u32,
            pli_count: u32,
            total_processing_delay: f64,
            estimated_playout_timestamp: f64,
            jitter_buffer_delay: f64,
            jitter_buffer_target_delay: f64,
            jitter_buffer_emitted_count: u64,
            jitter_buffer_minimum_delay: f64,
            total_samples_received: u64,
            concealed_samples: u64,
            silent_concealed_samples: u64,
            concealment_events: u64,
            inserted_samples_for_deceleration: u64,
            removed_samples_for_acceleration: u64,
            audio_level: f64,
            total_audio_energy: f64,
            total_samples_duration: f64,
            frames_received: u64,
            decoder_implementation: String,
            playout_id: String,
            power_efficient_decoder: bool,
            frames_assembled_from_multiple_packets: u64,
            total_assembly_time: f64,
            retransmitted_packets_received: u64,
            retransmitted_bytes_received: u64,
            rtx_ssrc: u32,
            fec_ssrc: u32,
        }
        of::SentRtpStreamStats {
            packets_sent: u64,
            bytes_sent: u64,
        }
        of::OutboundRtpStreamStats {
            mid: String,
            media_source_id: String,
            remote_id: String,
            rid: String,
            header_bytes_sent: u64,
            retransmitted_packets_sent: u64,
            retransmitted_bytes_sent: u64,
            rtx_ssrc: u32,
            target_bitrate: f64,
            total_encoded_bytes_target: u64,
            frame_width: u32,
            frame_height: u32,
            frames_per_second: f64,
            frames_sent: u32,
            huge_frames_sent: u32,
            frames_encoded: u32,
            key_frames_encoded: u32,
            qp_sum: u64,
            total_encode_time: f64,
            total_packet_send_delay: f64,
            quality_limitation_reason: QualityLimitationReason,
            quality_limitation_durations: HashMap<String, f64>,
            quality_limitation_resolution_changes: u32,
            nack_count: u32,
            fir_count: u32,
            pli_count: u32,
            encoder_implementation: String,
            power_efficient_encoder: bool,
            active: bool,
            scalibility_mode: String,
        }
        of::RemoteInboundRtpStreamStats {
            local_id: String,
            round_trip_time: f64,
            total_round_trip_time: f64,
            fraction_lost: f64,
            round_trip_time_measurements: u64,
        }
        of::RemoteOutboundRtpStreamStats {
            local_id: String,
            remote_timestamp: f64,
            reports_sent: u64,
            round_trip_time: f64,
            total_round_trip_time: f64,
            round_trip_time_measurements: u64,
        }
        of::MediaSourceStats {
            track_identifier: String,
            kind: String,
        }
        of::AudioSourceStats {
            audio_level: f64,
            total_audio_energy: f64,
            total_samples_duration: f64,
            echo_return_loss: f64,
            echo_return_loss_enhancement: f64,
            dropped_samples_duration: f64,
            dropped_samples_events: u32,
            total_capture_delay: f64,
            total_samples_captured: u64,
        }
        of::VideoSourceStats {
            width: u32,
            height: u32,
            frames: u32,
            frames_per_second: f64,
        }
        of::AudioPlayoutStats {
            kind: String,
            synthesized_samples_duration: f64,
            synthesized_samples_events: u32,
            total_samples_duration: f64,
            total_playout_delay: f64,
            total_samples_count: u64,
        }
        of::PeerConnectionStats {
            data_channels_opened: u32,
            data_channels_closed: u32,
        }
        of::DataChannelStats {
            label: String,
            protocol: String,
            data_channel_identifier: i32,
            state: Option<DataChannelState>,
            messages_sent: u32,
            bytes_sent: u64,
            messages_received: u32,
            bytes_received: u64,
        }
        of::TransportStats {
            packets_sent: u64,
            packets_received: u64,
            bytes_sent: u64,
            bytes_received: u64,
            ice_role: IceRole,
            ice_local_username_fragment: String,
            dtls_state: Option<DtlsTransportState>,
            ice_state: Option<IceTransportState>,
            selected_candidate_pair_id: String,
            local_certificate_id: String,
            remote_certificate_id: String,
            tls_version: String,
            dtls_cipher: String,
            dtls_role: DtlsRole,
            srtp_cipher: String,
            selected_candidate_pair_changes: u32,
        }
        of::CandidatePairStats {
            transport_id: String,
            local_candidate_id: String,
            remote_candidate_id: String,
            state: Option<IceCandidatePairState>,
            nominated: bool,
            packets_sent: u64,
            packets_received: u64,
            bytes_sent: u64,
            bytes_received: u64,
            last_packet_sent_timestamp: f64,
            last_packet_received_timestamp: f64,
            total_round_trip_time: f64,
            current_round_trip_time: f64,
            available_outgoing_bitrate: f64,
            available_incoming_bitrate: f64,
            requests_received: u64,
            requests_sent: u64,
            responses_received: u64,
            responses_sent: u64,
            consent_requests_sent: u64,
            packets_discarded_on_send: u32,
            bytes_discarded_on_send: u64,
        }
        of::IceCandidateStats {
            transport_id: String,
            address: String,
            port: i32,
            protocol: String,
            candidate_type: Option<IceCandidateType>,
            priority: i32,
            url: String,
            relay_protocol: Option<IceServerTransportProtocol>,
            foundation: String,
            related_address: String,
            related_port: i32,
            username_fragment: String,
            tcp_type: Option<IceTcpCandidateType>,
            network_type: Option<String>,
        }
        of::CertificateStats {
            fingerprint: String,
            fingerprint_algorithm: String,
            base64_certificate: String,
            issuer_certificate_id: String,
        }
        of::StreamStats {
            id: String,
            stream_identifier: String,
        }
    }
}
