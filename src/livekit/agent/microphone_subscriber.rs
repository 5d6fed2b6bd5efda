//! Receives the microphone of one participant: by its LiveKit track, and by data packets.

use std::time::Instant;

use futures::StreamExt;
use livekit::{
    DataPacketKind, RoomEvent,
    prelude::{Participant, RemoteParticipant, RemoteTrack, RemoteTrackPublication, TrackKind, TrackSource},
    webrtc::audio_stream::native::{NativeAudioStream, NativeAudioStreamOptions},
};
use tokio::sync::mpsc;

use crate::{
    audio::{SAMPLE_RATE_HZ, data_packet_buffer::DataPacketBuffer},
    clock,
    ids::{Identity, UserId},
    livekit::{agent::AgentEvent, token::MICROPHONE_TRACK},
    protocol::edge_v1::to_client::MediaSource,
    telemetry,
};

/// Samples that are passed on at once (20 ms): half as many messages as frames.
const CHUNK_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 50;

/// Frames of 10 ms that may wait: half a second, so that nothing is lost while the machine is busy.
pub(super) const QUEUE_FRAMES: usize = 50;

pub(super) struct MicrophoneSubscriber<'a> {
    /// The participant; others in the room are ignored.
    user: Identity,
    events: &'a mpsc::Sender<AgentEvent>,
    /// Whether to subscribe to the microphone's track.
    subscribes: bool,
    /// The microphone's track, subscribed to or not.
    publication: Option<RemoteTrackPublication>,
    /// The sid and the audio of the track that is subscribed to.
    track: Option<(String, NativeAudioStream)>,
    /// Samples that do not fill a chunk yet.
    samples: Vec<i16>,
    packets: DataPacketBuffer,
    /// Whether audio came in data packets.
    has_packets: bool,
}

impl<'a> MicrophoneSubscriber<'a> {
    pub(super) fn new(user: &UserId, events: &'a mpsc::Sender<AgentEvent>, subscribes: bool) -> Self {
        Self {
            user: Identity::from(user),
            events,
            subscribes,
            publication: None,
            track: None,
            samples: Vec::new(),
            packets: DataPacketBuffer::default(),
            has_packets: false,
        }
    }

    /// When [`forward_packets`](Self::forward_packets) has something to do.
    pub(super) fn packets_due(&self) -> Option<Instant> {
        self.packets.deadline()
    }

    /// The room is being left.
    pub(super) async fn close(&mut self) {
        self.end_track().await;
        self.end_packets().await;
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a room has many events that are not about its microphone"
    )]
    pub(super) async fn room_event(&mut self, event: RoomEvent) {
        match event {
            RoomEvent::Connected { participants_with_tracks } => {
                for (participant, publications) in participants_with_tracks {
                    for publication in publications {
                        self.published(&participant, &publication);
                    }
                }
            }
            RoomEvent::TrackPublished { publication, participant } => {
                self.published(&participant, &publication)
            }
            RoomEvent::TrackSubscribed { track: RemoteTrack::Audio(track), publication, participant }
                if self.is_microphone(&participant, &publication) =>
            {
                self.end_track().await;
                let options = NativeAudioStreamOptions { queue_size_frames: Some(QUEUE_FRAMES) };
                let audio =
                    NativeAudioStream::with_options(track.rtc_track(), SAMPLE_RATE_HZ as i32, 1, options);
                self.track = Some((publication.sid().to_string(), audio));
            }
            RoomEvent::TrackUnsubscribed { publication, .. }
            | RoomEvent::TrackUnpublished { publication, .. }
                if self.is_open(&publication.sid().to_string()) =>
            {
                self.end_track().await;
            }
            RoomEvent::TrackMuted { participant: Participant::Remote(_), publication }
                if self.is_open(&publication.sid().to_string()) =>
            {
                self.send(AgentEvent::SourceGone(MediaSource::Livekit)).await;
            }
            RoomEvent::DataReceived { payload, topic, kind: DataPacketKind::Lossy, participant }
                if topic.as_deref().is_none_or(|topic| topic.is_empty() || topic == MICROPHONE_TRACK) =>
            {
                // LiveKit sets the sender; a packet without one came from its server API.
                let sender = participant.map(|participant| participant.identity());
                if sender.is_some_and(|sender| sender.as_str() == self.user.as_str()) {
                    self.packets.push(&payload, clock::now());
                } else {
                    metrics::counter!(telemetry::PACKETS_SPOOFED).increment(1);
                }
            }
            RoomEvent::ParticipantDisconnected(participant) if self.is_user(&participant) => {
                self.end_packets().await;
            }
            _ => {}
        }
    }

    fn published(&mut self, participant: &RemoteParticipant, publication: &RemoteTrackPublication) {
        if self.is_microphone(participant, publication) {
            publication.set_subscribed(self.subscribes);
            self.publication = Some(publication.clone());
        }
    }

    /// Subscribes to the microphone's track from now on, or no longer.
    pub(super) fn set_subscribed(&mut self, subscribes: bool) {
        self.subscribes = subscribes;
        if let Some(publication) = &self.publication {
            publication.set_subscribed(subscribes);
        }
    }

    fn is_user(&self, participant: &RemoteParticipant) -> bool {
        participant.identity().as_str() == self.user.as_str()
    }

    fn is_microphone(&self, participant: &RemoteParticipant, publication: &RemoteTrackPublication) -> bool {
        self.is_user(participant) && is_microphone(publication)
    }

    fn is_open(&self, sid: &str) -> bool {
        self.track.as_ref().is_some_and(|(open, _)| open == sid)
    }

    /// The next 10 ms of the track; pending without a track.
    pub(super) async fn frame(&mut self) -> Option<Vec<i16>> {
        match &mut self.track {
            Some((_, audio)) => audio.next().await.map(|frame| frame.data.into_owned()),
            None => std::future::pending().await,
        }
    }

    /// Passes a frame on; none where the track has ended.
    pub(super) async fn forward_frame(&mut self, frame: Option<Vec<i16>>) {
        let Some(frame) = frame else {
            return self.end_track().await;
        };
        self.samples.extend(frame);
        if self.samples.len() >= CHUNK_SAMPLES {
            let chunk = std::mem::take(&mut self.samples);
            if self.events.try_send(AgentEvent::Audio(MediaSource::Livekit, chunk.into())).is_err() {
                // The session does not keep up with real time.
                metrics::counter!(telemetry::AGENT_AUDIO_DROPPED).increment(1);
            }
        }
    }

    /// Passes on the chunk of packets that is due.
    pub(super) fn forward_packets(&mut self) {
        let Some(chunk) = self.packets.due(clock::now()) else { return };
        self.has_packets = true;
        if self.events.try_send(AgentEvent::Audio(MediaSource::Data, chunk.into())).is_err() {
            metrics::counter!(telemetry::AGENT_AUDIO_DROPPED).increment(1);
        }
    }

    async fn end_packets(&mut self) {
        self.packets = DataPacketBuffer::default();
        if std::mem::take(&mut self.has_packets) {
            self.send(AgentEvent::SourceGone(MediaSource::Data)).await;
        }
    }

    async fn end_track(&mut self) {
        self.samples.clear();
        if self.track.take().is_some() {
            self.send(AgentEvent::SourceGone(MediaSource::Livekit)).await;
        }
    }

    async fn send(&self, event: AgentEvent) {
        // Fails where the session has ended: the agent is dismissed then.
        let _ = self.events.send(event).await;
    }
}

/// A track `mic`, or one whose source is a microphone: browsers do not name it.
pub(super) fn is_microphone(publication: &RemoteTrackPublication) -> bool {
    publication.kind() == TrackKind::Audio
        && (publication.name() == MICROPHONE_TRACK || publication.source() == TrackSource::Microphone)
}
