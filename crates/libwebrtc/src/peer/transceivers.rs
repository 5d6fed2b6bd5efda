//! Transceivers: the mapping of sent and received tracks to media sections.

use std::collections::HashMap;
use std::time::Instant;

use str0m::format::Codec;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite};

use super::sdp::{OpusParameters, Section};
use super::{Output, Peer, PeerEvent, media_kind, mid};
use crate::audio::jitter::Packet;
use crate::audio::receiver::PayloadFormat;
use crate::audio::red::Packer;
use crate::audio::sender::{EncodedPacket, EncoderSettings};
use crate::audio::sink::Sinks;
use crate::audio_track::{AudioTrackKind, RtcAudioTrack};
use crate::media_stream_track::MediaStreamTrack;
use crate::rtp_parameters::{
    RtcpParameters, RtpCodecCapability, RtpCodecParameters, RtpEncodingParameters, RtpParameters,
};
use crate::rtp_transceiver::{RtpTransceiverDirection as Direction, RtpTransceiverInit};
use crate::video_track::RtcVideoTrack;
use crate::{MediaType, RtcError};

/// Identifies a transceiver within one peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TransceiverId(u32);

/// A received audio packet and its track.
#[derive(Debug)]
pub(crate) struct ReceivedAudio {
    pub track: RtcAudioTrack,
    pub packet: Packet,
    pub payload_format: PayloadFormat,
}

/// The track that a transceiver sends, and its encoder settings.
#[derive(Debug, Clone)]
pub(crate) struct SendConfig {
    pub track: RtcAudioTrack,
    pub settings: EncoderSettings,
}

#[derive(Debug, Default)]
pub(super) struct Transceivers {
    list: Vec<Transceiver>,
    next: u32,
    /// Transceivers by received SSRC, filled at the first packet of each.
    by_ssrc: HashMap<u32, TransceiverId>,
}

#[derive(Debug)]
struct Transceiver {
    id: TransceiverId,
    kind: MediaKind,
    /// Media section; set when an offer or answer that contains it is applied.
    mid: Option<Mid>,
    /// Preferred direction of this side.
    direction: Direction,
    /// Negotiated direction.
    current_direction: Option<Direction>,
    sender: SenderState,
    receiver: Option<ReceiverState>,
}

#[derive(Debug, Default)]
struct SenderState {
    track: Option<MediaStreamTrack>,
    encodings: Vec<RtpEncodingParameters>,
    /// Opus parameters that the peer requests.
    opus: OpusParameters,
    /// Holds the previous packet for RED.
    red: Packer,
    /// Whether the driver has a sender for the track.
    active: bool,
}

#[derive(Debug)]
struct ReceiverState {
    track: MediaStreamTrack,
    /// Stream and track ids as signalled by the peer.
    msids: Vec<(String, Option<String>)>,
    /// SSRCs signalled by the peer.
    ssrcs: Vec<u32>,
}

impl Transceivers {
    fn get(&self, id: TransceiverId) -> Option<&Transceiver> {
        self.list.iter().find(|transceiver| transceiver.id == id)
    }

    fn get_mut(&mut self, id: TransceiverId) -> Option<&mut Transceiver> {
        self.list.iter_mut().find(|transceiver| transceiver.id == id)
    }

    fn add(&mut self, kind: MediaKind, direction: Direction) -> &mut Transceiver {
        let id = TransceiverId(self.next);
        self.next += 1;
        self.list.push(Transceiver {
            id,
            kind,
            mid: None,
            direction,
            current_direction: None,
            sender: SenderState::default(),
            receiver: None,
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    pub(super) fn ids(&self) -> Vec<TransceiverId> {
        self.list.iter().map(|transceiver| transceiver.id).collect()
    }

    /// Transceivers without a media section: kind, direction, and id of the track to send.
    pub(super) fn unassigned(
        &self,
    ) -> impl Iterator<Item = (TransceiverId, MediaKind, Direction, Option<String>)> {
        self.list.iter().filter(|t| t.mid.is_none() && t.direction != Direction::Stopped).map(|t| {
            let track_id = t.sender.track.as_ref().map(MediaStreamTrack::id);
            (t.id, t.kind, t.direction, track_id)
        })
    }

    /// Transceivers with a media section: mid and preferred direction.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (Mid, Direction)> {
        self.list.iter().filter_map(|t| Some((t.mid?, t.direction)))
    }

    pub(super) fn assign(&mut self, id: TransceiverId, mid: Option<Mid>) {
        if let Some(transceiver) = self.get_mut(id) {
            transceiver.mid = mid;
        }
    }

    pub(super) fn first_mid(&self) -> Option<String> {
        self.list.iter().find_map(|t| Some(t.mid?.to_string()))
    }

    /// Stops all transceivers; returns the received tracks.
    pub(super) fn close_all(&mut self) -> Vec<MediaStreamTrack> {
        let tracks = self.list.iter_mut().filter_map(|t| Some(t.receiver.take()?.track)).collect();
        for transceiver in &mut self.list {
            transceiver.current_direction = Some(Direction::Stopped);
            transceiver.direction = Direction::Stopped;
        }
        tracks
    }
}

impl Peer {
    // --- Changes by the application -------------------------------------------------------------------

    /// Adds a transceiver that sends `track`, if given.
    pub(crate) fn add_transceiver(
        &mut self,
        media: MediaType,
        track: Option<MediaStreamTrack>,
        init: RtpTransceiverInit,
    ) -> Result<TransceiverId, RtcError> {
        self.ensure_open()?;
        let kind = match media {
            MediaType::Audio => MediaKind::Audio,
            MediaType::Video => MediaKind::Video,
            MediaType::Data | MediaType::Unsupported => {
                return Err(RtcError::invalid_state("a transceiver must be for audio or video"));
            }
        };
        if let Some(track) = &track {
            ensure_sendable(track)?;
        }
        let transceiver = self.transceivers.add(kind, init.direction);
        transceiver.sender.encodings = match init.send_encodings {
            none if none.is_empty() => vec![RtpEncodingParameters::default()],
            encodings => encodings,
        };
        transceiver.sender.track = track;
        let id = transceiver.id;
        self.negotiation_needed();
        Ok(id)
    }

    /// Sends `track` on an unused transceiver of its kind, or on a new one.
    pub(crate) fn add_track(&mut self, track: MediaStreamTrack) -> Result<TransceiverId, RtcError> {
        self.ensure_open()?;
        ensure_sendable(&track)?;
        let media = media_type(&track);
        let free = self.transceivers.list.iter_mut().find(|t| {
            t.kind == kind_of(&track)
                && t.sender.track.is_none()
                && !t.direction.sends()
                && t.direction != Direction::Stopped
        });
        let Some(free) = free else {
            let init = RtpTransceiverInit {
                direction: Direction::SendRecv,
                stream_ids: Vec::new(),
                send_encodings: Vec::new(),
            };
            return self.add_transceiver(media, Some(track), init);
        };
        free.sender.track = Some(track);
        free.direction = free.direction.with_sending();
        let id = free.id;
        self.negotiation_needed();
        Ok(id)
    }

    /// Stops sending. The change is signalled in the next offer.
    pub(crate) fn remove_track(&mut self, id: TransceiverId) -> Result<(), RtcError> {
        self.ensure_open()?;
        let transceiver = self.transceivers.get_mut(id).ok_or_else(unknown_transceiver)?;
        if transceiver.sender.track.take().is_none() {
            return Ok(());
        }
        transceiver.direction = transceiver.direction.without_sending();
        self.update_sending(id);
        self.negotiation_needed();
        Ok(())
    }

    pub(crate) fn set_sender_track(
        &mut self,
        id: TransceiverId,
        track: Option<MediaStreamTrack>,
    ) -> Result<(), RtcError> {
        self.ensure_open()?;
        let transceiver = self.transceivers.get_mut(id).ok_or_else(unknown_transceiver)?;
        if let Some(track) = &track {
            ensure_sendable(track)?;
            if kind_of(track) != transceiver.kind {
                return Err(RtcError::invalid_state(
                    "the kind of the track differs from that of the transceiver",
                ));
            }
        }
        transceiver.sender.track = track;
        self.update_sending(id);
        Ok(())
    }

    pub(crate) fn stop_transceiver(&mut self, id: TransceiverId) -> Result<(), RtcError> {
        self.ensure_open()?;
        self.transceivers.get_mut(id).ok_or_else(unknown_transceiver)?.direction = Direction::Stopped;
        self.update_sending(id);
        self.negotiation_needed();
        Ok(())
    }

    pub(crate) fn set_codec_preferences(
        &mut self,
        id: TransceiverId,
        codecs: &[RtpCodecCapability],
    ) -> Result<(), RtcError> {
        self.ensure_open()?;
        let transceiver = self.transceivers.get(id).ok_or_else(unknown_transceiver)?;
        let ours =
            if transceiver.kind.is_audio() { &["audio/opus"][..] } else { &["video/vp8", "video/h264"] };
        let known = |codec: &RtpCodecCapability| ours.contains(&&*codec.mime_type.to_ascii_lowercase());
        if codecs.is_empty() || codecs.iter().any(known) {
            return Ok(());
        }
        Err(RtcError::invalid_state("none of the preferred codecs is available"))
    }

    pub(crate) fn set_sender_parameters(
        &mut self,
        id: TransceiverId,
        parameters: RtpParameters,
    ) -> Result<(), RtcError> {
        self.ensure_open()?;
        let sender = &mut self.transceivers.get_mut(id).ok_or_else(unknown_transceiver)?.sender;
        if parameters.encodings.len() != sender.encodings.len() {
            return Err(RtcError::invalid_state("the number of encodings cannot be changed"));
        }
        sender.encodings = parameters.encodings;
        self.update_sending(id);
        Ok(())
    }

    /// Sends an encoded packet of this transceiver's track.
    pub(crate) fn send_audio(&mut self, id: TransceiverId, outgoing: EncodedPacket, now: Instant) {
        let Some(mid) = self.transceivers.get(id).and_then(|transceiver| transceiver.mid) else {
            return;
        };
        let (Some(payload_types), Some(transceiver)) =
            (self.opus_payload_types(mid), self.transceivers.get_mut(id))
        else {
            return;
        };
        let sender = &mut transceiver.sender;
        let (payload_type, payload) = match payload_types.red {
            Some(red) if sender.opus.red => {
                (red, sender.red.pack(outgoing.payload, outgoing.time, *payload_types.opus))
            }
            _ => (payload_types.opus, outgoing.payload),
        };
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, None) else {
            return;
        };
        let levels = ExtensionValues {
            audio_level: Some(outgoing.level),
            voice_activity: Some(outgoing.level > -127),
            ..ExtensionValues::default()
        };
        let packet = RtpWrite::new(payload_type, outgoing.seq.into(), outgoing.time, now, payload);
        stream.write_rtp(packet.marker(outgoing.marker).ext_vals(levels));
        // str0m sends queued RTP packets at the next timeout.
        self.drive_after_change(now);
    }

    // --- Queries by the application -------------------------------------------------------------------

    pub(crate) fn transceiver_ids(&self) -> Vec<TransceiverId> {
        self.transceivers.ids()
    }

    pub(crate) fn mid(&self, id: TransceiverId) -> Option<String> {
        Some(self.transceivers.get(id)?.mid?.to_string())
    }

    pub(crate) fn direction(&self, id: TransceiverId) -> Direction {
        self.transceivers.get(id).map_or(Direction::Stopped, |transceiver| transceiver.direction)
    }

    pub(crate) fn current_direction(&self, id: TransceiverId) -> Option<Direction> {
        self.transceivers.get(id)?.current_direction
    }

    pub(crate) fn sender_track(&self, id: TransceiverId) -> Option<MediaStreamTrack> {
        self.transceivers.get(id)?.sender.track.clone()
    }

    pub(crate) fn receiver_track(&self, id: TransceiverId) -> Option<MediaStreamTrack> {
        self.transceivers.get(id)?.receiver.as_ref().map(|receiver| receiver.track.clone())
    }

    pub(crate) fn stream_ids(&self, id: TransceiverId) -> Vec<String> {
        let receiver = self.transceivers.get(id).and_then(|transceiver| transceiver.receiver.as_ref());
        receiver.map(|r| r.msids.iter().map(|(stream, _)| stream.clone()).collect()).unwrap_or_default()
    }

    pub(crate) fn sender_parameters(&self, id: TransceiverId) -> RtpParameters {
        let mut parameters = self.receiver_parameters(id);
        if let Some(transceiver) = self.transceivers.get(id) {
            parameters.encodings.clone_from(&transceiver.sender.encodings);
        }
        parameters
    }

    pub(crate) fn receiver_parameters(&self, id: TransceiverId) -> RtpParameters {
        let transceiver = self.transceivers.get(id);
        let opus = transceiver.and_then(|transceiver| self.opus_payload_types(transceiver.mid?));
        let codec = opus.map(|payload_types| RtpCodecParameters {
            payload_type: *payload_types.opus,
            mime_type: "audio/opus".to_owned(),
            clock_rate: Some(48_000),
            channels: Some(2),
        });
        let mut parameters = RtpParameters::default();
        parameters.codecs.extend(codec);
        parameters.rtcp = RtcpParameters { cname: String::new(), reduced_size: true };
        parameters
    }

    /// The received audio track of this transceiver, if any.
    pub(super) fn received_audio(&self, id: TransceiverId) -> Option<(&RtcAudioTrack, Mid)> {
        let transceiver = self.transceivers.get(id)?;
        match &transceiver.receiver.as_ref()?.track {
            MediaStreamTrack::Audio(track) => Some((track, transceiver.mid?)),
            MediaStreamTrack::Video(_) => None,
        }
    }

    /// The audio track that this transceiver is sending, if any.
    pub(super) fn sent_audio(&self, id: TransceiverId) -> Option<(&RtcAudioTrack, Mid)> {
        let transceiver = self.transceivers.get(id)?;
        match transceiver.sender.track.as_ref().filter(|_| transceiver.sender.active)? {
            MediaStreamTrack::Audio(track) => Some((track, transceiver.mid?)),
            MediaStreamTrack::Video(_) => None,
        }
    }

    // --- Remote descriptions --------------------------------------------------------------------------

    /// Applies the media sections of a remote description.
    pub(super) fn apply_remote_sections(&mut self, sections: &[Section]) {
        for section in sections {
            let Some(kind) = media_kind(section.kind) else {
                continue;
            };
            let section_mid = mid(&section.mid);
            let id = match self.transceivers.list.iter().find(|t| t.mid == Some(section_mid)) {
                Some(transceiver) => transceiver.id,
                None => self.assign_offered_section(kind, section_mid),
            };
            self.apply_remote_section(id, section_mid, section);
        }
    }

    /// Assigns a section offered by the peer to a transceiver with a track to send, or to a new receive-only one.
    fn assign_offered_section(&mut self, kind: MediaKind, mid: Mid) -> TransceiverId {
        let is_waiting = |t: &&mut Transceiver| t.mid.is_none() && t.kind == kind && t.sender.track.is_some();
        let transceiver = match self.transceivers.list.iter_mut().find(is_waiting) {
            Some(waiting) => waiting.id,
            None => self.transceivers.add(kind, Direction::RecvOnly).id,
        };
        self.transceivers.assign(transceiver, Some(mid));
        transceiver
    }

    fn apply_remote_section(&mut self, id: TransceiverId, section_mid: Mid, section: &Section) {
        // str0m's direction is authoritative, and is already from this side's point of view.
        let current_direction =
            self.rtc.media(section_mid).map_or(Direction::Inactive, |media| from_str0m(media.direction()));
        let Some(transceiver) = self.transceivers.get_mut(id) else {
            return;
        };
        transceiver.current_direction = Some(current_direction);
        transceiver.sender.opus = section.opus;
        let receiving = current_direction.receives() && !section.msids.is_empty();
        let same = transceiver.receiver.as_ref().is_some_and(|receiver| receiver.msids == section.msids);
        let ended = if receiving && same { None } else { transceiver.receiver.take() };
        if receiving && !same {
            let track = remote_track(transceiver.kind, &section.msids);
            let msids = section.msids.clone();
            transceiver.receiver = Some(ReceiverState { track, msids, ssrcs: section.ssrcs.clone() });
        } else if let Some(receiver) = &mut transceiver.receiver {
            receiver.ssrcs.clone_from(&section.ssrcs);
        }
        if let Some(ended) = ended {
            self.end_receiving(ended);
        }
        if receiving && !same {
            self.notify(PeerEvent::Track(id));
        }
        self.update_sending(id);
    }

    /// Removes str0m's send streams of sections that do not send. str0m creates one for each offered section, including
    /// receive-only ones; each takes 10 KB, is visited for each packet, and is reported to the peer every few seconds.
    pub(super) fn remove_unused_send_streams(&mut self) {
        for transceiver in &self.transceivers.list {
            let Some(mid) = transceiver.mid.filter(|_| !transceiver.direction.sends()) else {
                continue;
            };
            let mut api = self.rtc.direct_api();
            while let Some(ssrc) = api.stream_tx_by_mid(mid, None).map(|stream| stream.ssrc()) {
                api.remove_stream_tx(ssrc);
            }
        }
    }

    /// Creates the send streams of sections that were receive-only so far, so that the offer contains their SSRCs.
    pub(super) fn declare_send_streams(&mut self) {
        for transceiver in self.transceivers.list.iter().filter(|t| t.direction.sends() && t.kind.is_audio())
        {
            let Some(mid) = transceiver.mid.filter(|mid| self.rtc.media(*mid).is_some()) else {
                continue;
            };
            let mut api = self.rtc.direct_api();
            if api.stream_tx_by_mid(mid, None).is_none() {
                let ssrc = api.new_ssrc();
                api.declare_stream_tx(ssrc, None, mid, None);
            }
        }
    }

    /// Removes the SSRCs of an ended track, so that its late packets are not played out on the next track.
    fn end_receiving(&mut self, receiver: ReceiverState) {
        for ssrc in &receiver.ssrcs {
            self.transceivers.by_ssrc.remove(ssrc);
            let announced = self.transceivers.list.iter().filter_map(|t| t.receiver.as_ref());
            if !announced.flat_map(|receiver| &receiver.ssrcs).any(|other| other == ssrc) {
                self.rtc.direct_api().remove_stream_rx((*ssrc).into());
            }
        }
        receiver.track.end();
        if let MediaStreamTrack::Audio(track) = receiver.track {
            self.outputs.push_back(Output::TrackEnded(track));
        }
    }

    pub(super) fn handle_rtp(&mut self, packet: RtpPacket) {
        let ssrc = *packet.header.ssrc;
        let known = self.transceivers.by_ssrc.get(&ssrc).copied();
        let Some(id) = known.or_else(|| self.map_ssrc(ssrc)) else {
            return;
        };
        let Some(transceiver) = self.transceivers.get(id) else {
            return;
        };
        let (Some(mid), Some(ReceiverState { track: MediaStreamTrack::Audio(track), .. })) =
            (transceiver.mid, &transceiver.receiver)
        else {
            return;
        };
        let Some(payload_types) = self.opus_payload_types(mid) else {
            return;
        };
        let payload_format = match packet.header.payload_type {
            opus if opus == payload_types.opus => PayloadFormat::Opus,
            red if Some(red) == payload_types.red => PayloadFormat::Red { opus: *payload_types.opus },
            _ => return,
        };
        let received = ReceivedAudio {
            track: track.clone(),
            packet: Packet {
                ssrc,
                seq: packet.header.sequence_number,
                time: packet.header.timestamp,
                payload: packet.payload,
            },
            payload_format,
        };
        self.outputs.push_back(Output::Packet(received));
    }

    /// Enables or disables NACK for an SSRC (RFC 4585 §6.2.1). It is enabled only while packets are missing, because
    /// str0m then checks for gaps 30 times a second on each connection.
    ///
    /// NACK is used whatever LiveKit's description contains. LiveKit removes `nack` from sections whose track has RED,
    /// but retransmits nevertheless; and one copy does not help if three packets in a row are lost. If the server
    /// itself creates the RED copies, it does not retransmit.
    pub(crate) fn set_nack_enabled(&mut self, ssrc: u32, enabled: bool, now: Instant) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            stream.suppress_nack(!enabled);
            self.drive_after_change(now);
        }
    }

    fn map_ssrc(&mut self, ssrc: u32) -> Option<TransceiverId> {
        let mid = self.rtc.direct_api().stream_rx(&ssrc.into())?.mid();
        let id = self.transceivers.list.iter().find(|transceiver| transceiver.mid == Some(mid))?.id;
        self.transceivers.by_ssrc.insert(ssrc, id);
        Some(id)
    }

    /// Outputs the current [`SendConfig`] of this transceiver, or that sending stops.
    fn update_sending(&mut self, id: TransceiverId) {
        let Some(transceiver) = self.transceivers.get_mut(id) else {
            return;
        };
        let sender = &mut transceiver.sender;
        let encoding = sender.encodings.first().cloned().unwrap_or_default();
        let sending = transceiver.current_direction.is_some_and(Direction::sends)
            && transceiver.direction.sends()
            && encoding.active;
        let config = match &sender.track {
            Some(MediaStreamTrack::Audio(track)) if sending => Some(SendConfig {
                track: track.clone(),
                settings: EncoderSettings {
                    max_bitrate: min_bitrate(encoding.max_bitrate, sender.opus.max_bitrate),
                    dtx: sender.opus.dtx,
                    fec: sender.opus.fec,
                    stereo: sender.opus.stereo,
                },
            }),
            _ => None,
        };
        if config.is_some() || sender.active {
            sender.active = config.is_some();
            self.outputs.push_back(Output::SetSender(id, config));
        }
    }

    fn opus_payload_types(&self, mid: Mid) -> Option<OpusPayloadTypes> {
        let negotiated = self.rtc.media(mid)?.remote_pts();
        let params = self.rtc.codec_config().params();
        let opus = params.iter().find(|p| p.spec().codec == Codec::Opus && negotiated.contains(&p.pt()))?;
        Some(OpusPayloadTypes { opus: opus.pt(), red: opus.red() })
    }
}

/// Payload types of Opus and of RED in one media section.
struct OpusPayloadTypes {
    opus: Pt,
    red: Option<Pt>,
}

fn remote_track(kind: MediaKind, msids: &[(String, Option<String>)]) -> MediaStreamTrack {
    let named = msids.iter().find_map(|(_, track)| track.clone());
    let id = named.unwrap_or_else(crate::native::create_random_uuid);
    match kind {
        MediaKind::Audio => RtcAudioTrack::new(id, AudioTrackKind::Remote(Sinks::default())).into(),
        MediaKind::Video => RtcVideoTrack::new(id).into(),
    }
}

/// Returns an error for tracks that this crate cannot send.
fn ensure_sendable(track: &MediaStreamTrack) -> Result<(), RtcError> {
    match track {
        MediaStreamTrack::Video(_) => Err(RtcError::unavailable("video")),
        MediaStreamTrack::Audio(track) => match track.shared().kind() {
            AudioTrackKind::Source(source) => source.shared().check_format(),
            AudioTrackKind::Device => Err(RtcError::unavailable("access to microphones")),
            AudioTrackKind::Remote(_) => Err(RtcError::invalid_state("a remote track cannot be sent")),
        },
    }
}

fn kind_of(track: &MediaStreamTrack) -> MediaKind {
    match track {
        MediaStreamTrack::Audio(_) => MediaKind::Audio,
        MediaStreamTrack::Video(_) => MediaKind::Video,
    }
}

fn media_type(track: &MediaStreamTrack) -> MediaType {
    match track {
        MediaStreamTrack::Audio(_) => MediaType::Audio,
        MediaStreamTrack::Video(_) => MediaType::Video,
    }
}

fn from_str0m(direction: str0m::media::Direction) -> Direction {
    match direction {
        str0m::media::Direction::SendRecv => Direction::SendRecv,
        str0m::media::Direction::SendOnly => Direction::SendOnly,
        str0m::media::Direction::RecvOnly => Direction::RecvOnly,
        str0m::media::Direction::Inactive => Direction::Inactive,
    }
}

fn min_bitrate(ours: Option<u64>, theirs: Option<u32>) -> Option<u32> {
    let ours = ours.map(|bitrate| u32::try_from(bitrate).unwrap_or(u32::MAX));
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
        (one, other) => one.or(other),
    }
}

fn unknown_transceiver() -> RtcError {
    RtcError::invalid_state("the transceiver belongs to another connection")
}
