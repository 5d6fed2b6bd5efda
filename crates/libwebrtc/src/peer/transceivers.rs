//! The peer's transceivers: which tracks go out and come in on which media section.

use std::collections::HashMap;
use std::time::Instant;

use str0m::format::Codec;
use str0m::media::{MediaKind, Mid, Pt};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite};

use super::sdp::{OpusParameters, Section};
use super::{Notice, Output, Peer, media_kind, mid};
use crate::audio::jitter::Packet;
use crate::audio::receiver::Packing;
use crate::audio::red::Packer;
use crate::audio::sender::{Coding, Outgoing};
use crate::audio::sink::Sinks;
use crate::audio_track::{Feed, RtcAudioTrack};
use crate::media_stream_track::MediaStreamTrack;
use crate::rtp_parameters::{
    RtcpParameters, RtpCodecCapability, RtpCodecParameters, RtpEncodingParameters, RtpParameters,
};
use crate::rtp_transceiver::{RtpTransceiverDirection as Direction, RtpTransceiverInit};
use crate::video_track::RtcVideoTrack;
use crate::{MediaType, RtcError};

/// Names a transceiver of one peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TransceiverId(u32);

/// A packet of sound for a track.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub track: RtcAudioTrack,
    pub packet: Packet,
    pub packing: Packing,
}

/// How the sound of a transceiver's track is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct SendPlan {
    pub track: RtcAudioTrack,
    pub coding: Coding,
}

#[derive(Debug, Default)]
pub(super) struct Transceivers {
    list: Vec<Transceiver>,
    next: u32,
    /// Which transceiver each source arrives on, learnt from its first packet.
    sources: HashMap<u32, TransceiverId>,
}

#[derive(Debug)]
struct Transceiver {
    id: TransceiverId,
    kind: MediaKind,
    /// Its media section, once an offer or answer with it was applied.
    mid: Option<Mid>,
    /// The direction this side wants.
    wanted: Direction,
    /// The direction both sides agreed on.
    agreed: Option<Direction>,
    sender: Sending,
    receiver: Option<Receiving>,
}

#[derive(Debug, Default)]
struct Sending {
    track: Option<MediaStreamTrack>,
    encodings: Vec<RtpEncodingParameters>,
    /// What the peer asks of Opus.
    opus: OpusParameters,
    /// The packet before, for RED.
    red: Packer,
    /// Whether the driver was told to send.
    running: bool,
}

#[derive(Debug)]
struct Receiving {
    track: MediaStreamTrack,
    /// As the peer named them.
    msids: Vec<(String, Option<String>)>,
    /// The sources that the peer announced.
    ssrcs: Vec<u32>,
}

impl Transceivers {
    fn get(&self, id: TransceiverId) -> Option<&Transceiver> {
        self.list.iter().find(|transceiver| transceiver.id == id)
    }

    fn get_mut(&mut self, id: TransceiverId) -> Option<&mut Transceiver> {
        self.list.iter_mut().find(|transceiver| transceiver.id == id)
    }

    fn add(&mut self, kind: MediaKind, wanted: Direction) -> &mut Transceiver {
        let id = TransceiverId(self.next);
        self.next += 1;
        self.list.push(Transceiver {
            id,
            kind,
            mid: None,
            wanted,
            agreed: None,
            sender: Sending::default(),
            receiver: None,
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    pub(super) fn ids(&self) -> Vec<TransceiverId> {
        self.list.iter().map(|transceiver| transceiver.id).collect()
    }

    /// Those without a media section yet: kind, direction, and the id of the track they send.
    pub(super) fn unassigned(
        &self,
    ) -> impl Iterator<Item = (TransceiverId, MediaKind, Direction, Option<String>)> {
        self.list.iter().filter(|t| t.mid.is_none() && t.wanted != Direction::Stopped).map(|t| {
            let track_id = t.sender.track.as_ref().map(MediaStreamTrack::id);
            (t.id, t.kind, t.wanted, track_id)
        })
    }

    /// Those with a media section: its id and the direction that is wanted of it.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (Mid, Direction)> {
        self.list.iter().filter_map(|t| Some((t.mid?, t.wanted)))
    }

    pub(super) fn assign(&mut self, id: TransceiverId, mid: Option<Mid>) {
        if let Some(transceiver) = self.get_mut(id) {
            transceiver.mid = mid;
        }
    }

    pub(super) fn first_mid(&self) -> Option<String> {
        self.list.iter().find_map(|t| Some(t.mid?.to_string()))
    }

    /// Ends all; returns the tracks that arrived.
    pub(super) fn close_all(&mut self) -> Vec<MediaStreamTrack> {
        let tracks = self.list.iter_mut().filter_map(|t| Some(t.receiver.take()?.track)).collect();
        for transceiver in &mut self.list {
            transceiver.agreed = Some(Direction::Stopped);
            transceiver.wanted = Direction::Stopped;
        }
        tracks
    }
}

impl Peer {
    // --- What the application does --------------------------------------------------------------------

    /// Adds a transceiver that sends `track`, if there is one.
    pub(crate) fn add_transceiver(
        &mut self,
        media: MediaType,
        track: Option<MediaStreamTrack>,
        init: RtpTransceiverInit,
    ) -> Result<TransceiverId, RtcError> {
        self.open()?;
        let kind = match media {
            MediaType::Audio => MediaKind::Audio,
            MediaType::Video => MediaKind::Video,
            MediaType::Data | MediaType::Unsupported => {
                return Err(RtcError::invalid_state("a transceiver is of audio or of video"));
            }
        };
        if let Some(track) = &track {
            sendable(track)?;
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

    /// Sends `track` on a transceiver of its kind that has nothing to send, or on a new one.
    pub(crate) fn add_track(&mut self, track: MediaStreamTrack) -> Result<TransceiverId, RtcError> {
        self.open()?;
        sendable(&track)?;
        let media = media_type(&track);
        let free = self.transceivers.list.iter_mut().find(|t| {
            t.kind == kind_of(&track)
                && t.sender.track.is_none()
                && !t.wanted.sends()
                && t.wanted != Direction::Stopped
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
        free.wanted = free.wanted.with_sending();
        let id = free.id;
        self.negotiation_needed();
        Ok(id)
    }

    /// Stops sending: the next offer says so.
    pub(crate) fn remove_track(&mut self, id: TransceiverId) -> Result<(), RtcError> {
        self.open()?;
        let transceiver = self.transceivers.get_mut(id).ok_or_else(unknown)?;
        if transceiver.sender.track.take().is_none() {
            return Ok(());
        }
        transceiver.wanted = transceiver.wanted.without_sending();
        self.plan_sending(id);
        self.negotiation_needed();
        Ok(())
    }

    pub(crate) fn set_sender_track(
        &mut self,
        id: TransceiverId,
        track: Option<MediaStreamTrack>,
    ) -> Result<(), RtcError> {
        self.open()?;
        let transceiver = self.transceivers.get_mut(id).ok_or_else(unknown)?;
        if let Some(track) = &track {
            sendable(track)?;
            if kind_of(track) != transceiver.kind {
                return Err(RtcError::invalid_state("the track is of the other kind"));
            }
        }
        transceiver.sender.track = track;
        self.plan_sending(id);
        Ok(())
    }

    pub(crate) fn stop_transceiver(&mut self, id: TransceiverId) -> Result<(), RtcError> {
        self.open()?;
        self.transceivers.get_mut(id).ok_or_else(unknown)?.wanted = Direction::Stopped;
        self.plan_sending(id);
        self.negotiation_needed();
        Ok(())
    }

    pub(crate) fn set_codec_preferences(
        &mut self,
        id: TransceiverId,
        codecs: &[RtpCodecCapability],
    ) -> Result<(), RtcError> {
        self.open()?;
        let transceiver = self.transceivers.get(id).ok_or_else(unknown)?;
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
        self.open()?;
        let sender = &mut self.transceivers.get_mut(id).ok_or_else(unknown)?.sender;
        if parameters.encodings.len() != sender.encodings.len() {
            return Err(RtcError::invalid_state("the number of encodings can't be changed"));
        }
        sender.encodings = parameters.encodings;
        self.plan_sending(id);
        Ok(())
    }

    /// A packet of the track that this transceiver sends.
    pub(crate) fn send_audio(&mut self, id: TransceiverId, outgoing: Outgoing, now: Instant) {
        let Some(mid) = self.transceivers.get(id).and_then(|transceiver| transceiver.mid) else {
            return;
        };
        let (Some(types), Some(transceiver)) = (self.opus_types(mid), self.transceivers.get_mut(id)) else {
            return;
        };
        let sender = &mut transceiver.sender;
        let (payload_type, payload) = match types.red {
            Some(red) if sender.opus.red => {
                (red, sender.red.pack(outgoing.payload, outgoing.time, *types.opus))
            }
            _ => (types.opus, outgoing.payload),
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
        // It is queued for the next time that str0m is told the time.
        self.settle(now);
    }

    // --- What the application asks --------------------------------------------------------------------

    pub(crate) fn transceiver_ids(&self) -> Vec<TransceiverId> {
        self.transceivers.ids()
    }

    pub(crate) fn mid(&self, id: TransceiverId) -> Option<String> {
        Some(self.transceivers.get(id)?.mid?.to_string())
    }

    pub(crate) fn direction(&self, id: TransceiverId) -> Direction {
        self.transceivers.get(id).map_or(Direction::Stopped, |transceiver| transceiver.wanted)
    }

    pub(crate) fn current_direction(&self, id: TransceiverId) -> Option<Direction> {
        self.transceivers.get(id)?.agreed
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
        let opus = transceiver.and_then(|transceiver| self.opus_types(transceiver.mid?));
        let codec = opus.map(|types| RtpCodecParameters {
            payload_type: *types.opus,
            mime_type: "audio/opus".to_owned(),
            clock_rate: Some(48_000),
            channels: Some(2),
        });
        let mut parameters = RtpParameters::default();
        parameters.codecs.extend(codec);
        parameters.rtcp = RtcpParameters { cname: String::new(), reduced_size: true };
        parameters
    }

    /// The track that arrives on this transceiver, if it is of sound.
    pub(super) fn receiving_audio(&self, id: TransceiverId) -> Option<(&RtcAudioTrack, Mid)> {
        let transceiver = self.transceivers.get(id)?;
        match &transceiver.receiver.as_ref()?.track {
            MediaStreamTrack::Audio(track) => Some((track, transceiver.mid?)),
            MediaStreamTrack::Video(_) => None,
        }
    }

    /// The track that is sent on this transceiver, if it is of sound and being sent.
    pub(super) fn sending_audio(&self, id: TransceiverId) -> Option<(&RtcAudioTrack, Mid)> {
        let transceiver = self.transceivers.get(id)?;
        match transceiver.sender.track.as_ref().filter(|_| transceiver.sender.running)? {
            MediaStreamTrack::Audio(track) => Some((track, transceiver.mid?)),
            MediaStreamTrack::Video(_) => None,
        }
    }

    // --- What the peer says ---------------------------------------------------------------------------

    /// Takes over what the peer's description says about each media section. `ours` is whether it answers an
    /// offer of ours.
    pub(super) fn take_sections(&mut self, sections: &[Section]) {
        for section in sections {
            let Some(kind) = media_kind(section.kind) else {
                continue;
            };
            let section_mid = mid(&section.mid);
            let id = match self.transceivers.list.iter().find(|t| t.mid == Some(section_mid)) {
                Some(transceiver) => transceiver.id,
                None => self.adopt(kind, section_mid),
            };
            self.take_section(id, section_mid, section);
        }
    }

    /// A section that the peer offered: for a track of ours that waits for one, or only to receive.
    fn adopt(&mut self, kind: MediaKind, mid: Mid) -> TransceiverId {
        let waits = |t: &&mut Transceiver| t.mid.is_none() && t.kind == kind && t.sender.track.is_some();
        let transceiver = match self.transceivers.list.iter_mut().find(waits) {
            Some(waiting) => waiting.id,
            None => self.transceivers.add(kind, Direction::RecvOnly).id,
        };
        self.transceivers.assign(transceiver, Some(mid));
        transceiver
    }

    fn take_section(&mut self, id: TransceiverId, section_mid: Mid, section: &Section) {
        // What str0m made of it is what holds, and it is from our side already.
        let agreed =
            self.rtc.media(section_mid).map_or(Direction::Inactive, |media| from_str0m(media.direction()));
        let Some(transceiver) = self.transceivers.get_mut(id) else {
            return;
        };
        transceiver.agreed = Some(agreed);
        transceiver.sender.opus = section.opus;
        let arrives = agreed.receives() && !section.msids.is_empty();
        let same = transceiver.receiver.as_ref().is_some_and(|receiver| receiver.msids == section.msids);
        let ended = if arrives && same { None } else { transceiver.receiver.take() };
        if arrives && !same {
            let track = remote_track(transceiver.kind, &section.msids);
            let msids = section.msids.clone();
            transceiver.receiver = Some(Receiving { track, msids, ssrcs: section.ssrcs.clone() });
        } else if let Some(receiver) = &mut transceiver.receiver {
            receiver.ssrcs.clone_from(&section.ssrcs);
        }
        if let Some(ended) = ended {
            self.end_receiving(ended);
        }
        if arrives && !same {
            self.notify(Notice::Track(id));
        }
        self.plan_sending(id);
    }

    /// Has str0m keep streams for what is sent, and for nothing else. It makes one for each media section that we
    /// offer, also for those that only receive: 10 KB each, looked through with each packet, and reported to the
    /// peer every few seconds.
    pub(super) fn keep_streams_that_send(&mut self) {
        for transceiver in &self.transceivers.list {
            let Some(mid) = transceiver.mid.filter(|_| !transceiver.wanted.sends()) else {
                continue;
            };
            let mut api = self.rtc.direct_api();
            while let Some(ssrc) = api.stream_tx_by_mid(mid, None).map(|stream| stream.ssrc()) {
                api.remove_stream_tx(ssrc);
            }
        }
    }

    /// Makes the streams that sections need which received so far, for the offer to name them.
    pub(super) fn make_streams_that_send(&mut self) {
        for transceiver in self.transceivers.list.iter().filter(|t| t.wanted.sends() && t.kind.is_audio()) {
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

    /// Forgets the sources of a track that is gone, so that its stragglers don't sound into the next one.
    fn end_receiving(&mut self, receiving: Receiving) {
        for ssrc in &receiving.ssrcs {
            self.transceivers.sources.remove(ssrc);
            let announced = self.transceivers.list.iter().filter_map(|t| t.receiver.as_ref());
            if !announced.flat_map(|receiver| &receiver.ssrcs).any(|other| other == ssrc) {
                self.rtc.direct_api().remove_stream_rx((*ssrc).into());
            }
        }
        receiving.track.end();
        if let MediaStreamTrack::Audio(track) = receiving.track {
            self.outputs.push_back(Output::TrackEnded(track));
        }
    }

    pub(super) fn handle_rtp(&mut self, packet: RtpPacket) {
        let ssrc = *packet.header.ssrc;
        let known = self.transceivers.sources.get(&ssrc).copied();
        let Some(id) = known.or_else(|| self.learn_source(ssrc)) else {
            return;
        };
        let Some(transceiver) = self.transceivers.get(id) else {
            return;
        };
        let (Some(mid), Some(Receiving { track: MediaStreamTrack::Audio(track), .. })) =
            (transceiver.mid, &transceiver.receiver)
        else {
            return;
        };
        let Some(types) = self.opus_types(mid) else {
            return;
        };
        let packing = match packet.header.payload_type {
            opus if opus == types.opus => Packing::Opus,
            red if Some(red) == types.red => Packing::Red { opus: *types.opus },
            _ => return,
        };
        let incoming = Incoming {
            track: track.clone(),
            packet: Packet {
                ssrc,
                seq: packet.header.sequence_number,
                time: packet.header.timestamp,
                payload: packet.payload,
            },
            packing,
        };
        self.outputs.push_back(Output::Packet(incoming));
    }

    /// Asks the peer for what is missing of this source (NACK, RFC 4585 §6.2.1), until it is told to stop. Asked all
    /// the time, str0m would look for holes 30 times a second, on each connection.
    ///
    /// LiveKit answers whatever it says of a section: it takes `nack` off those whose track comes with RED, though one
    /// copy is of little help where three packets in a row are lost. Where it makes the copies itself it does not
    /// answer, and what is sent again too late is not waited for.
    pub(crate) fn ask_again(&mut self, ssrc: u32, ask: bool, now: Instant) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            stream.suppress_nack(!ask);
            self.settle(now);
        }
    }

    fn learn_source(&mut self, ssrc: u32) -> Option<TransceiverId> {
        let mid = self.rtc.direct_api().stream_rx(&ssrc.into())?.mid();
        let id = self.transceivers.list.iter().find(|transceiver| transceiver.mid == Some(mid))?.id;
        self.transceivers.sources.insert(ssrc, id);
        Some(id)
    }

    /// Tells the driver how to send this transceiver's track, or to stop.
    fn plan_sending(&mut self, id: TransceiverId) {
        let Some(transceiver) = self.transceivers.get_mut(id) else {
            return;
        };
        let sender = &mut transceiver.sender;
        let encoding = sender.encodings.first().cloned().unwrap_or_default();
        let flows =
            transceiver.agreed.is_some_and(Direction::sends) && transceiver.wanted.sends() && encoding.active;
        let plan = match &sender.track {
            Some(MediaStreamTrack::Audio(track)) if flows => Some(SendPlan {
                track: track.clone(),
                coding: Coding {
                    max_bitrate: least(encoding.max_bitrate, sender.opus.max_bitrate),
                    dtx: sender.opus.dtx,
                    fec: sender.opus.fec,
                    stereo: sender.opus.stereo,
                },
            }),
            _ => None,
        };
        if plan.is_some() || sender.running {
            sender.running = plan.is_some();
            self.outputs.push_back(Output::Send(id, plan));
        }
    }

    fn opus_types(&self, mid: Mid) -> Option<OpusTypes> {
        let agreed = self.rtc.media(mid)?.remote_pts();
        let params = self.rtc.codec_config().params();
        let opus = params.iter().find(|p| p.spec().codec == Codec::Opus && agreed.contains(&p.pt()))?;
        Some(OpusTypes { opus: opus.pt(), red: opus.red() })
    }
}

/// The payload types of Opus in one media section.
struct OpusTypes {
    opus: Pt,
    red: Option<Pt>,
}

fn remote_track(kind: MediaKind, msids: &[(String, Option<String>)]) -> MediaStreamTrack {
    let named = msids.iter().find_map(|(_, track)| track.clone());
    let id = named.unwrap_or_else(crate::native::create_random_uuid);
    match kind {
        MediaKind::Audio => RtcAudioTrack::new(id, Feed::Remote(Sinks::default())).into(),
        MediaKind::Video => RtcVideoTrack::new(id).into(),
    }
}

/// Fails for tracks that this crate can't send.
fn sendable(track: &MediaStreamTrack) -> Result<(), RtcError> {
    match track {
        MediaStreamTrack::Video(_) => Err(RtcError::unavailable("video")),
        MediaStreamTrack::Audio(track) => match track.shared().feed() {
            Feed::Source(source) => source.shared().check_format(),
            Feed::Device => Err(RtcError::unavailable("access to microphones")),
            Feed::Remote(_) => Err(RtcError::invalid_state("a remote track can't be sent on")),
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

fn least(ours: Option<u64>, theirs: Option<u32>) -> Option<u32> {
    let ours = ours.map(|bitrate| u32::try_from(bitrate).unwrap_or(u32::MAX));
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
        (one, other) => one.or(other),
    }
}

fn unknown() -> RtcError {
    RtcError::invalid_state("the transceiver is of another connection")
}
