//! Receives the microphones of other participants in the room, by their LiveKit tracks.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use livekit::{
    Room, RoomEvent,
    participant::ParticipantKind,
    prelude::{RemoteParticipant, RemoteTrack, RemoteTrackPublication},
    webrtc::audio_stream::native::{NativeAudioStream, NativeAudioStreamOptions},
};
use tokio::sync::mpsc;
use tokio_stream::StreamMap;

use super::{
    AgentEvent, QUEUE,
    microphone_subscriber::{QUEUE_FRAMES, is_microphone},
};
use crate::{
    audio::SAMPLE_RATE_HZ,
    ids::{Identity, UserId},
    protocol::Participants,
    telemetry,
};

/// Samples that are passed on at once (100 ms): nobody waits for an answer, and the session has few messages to handle.
const CHUNK_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 10;

/// The microphone of one participant.
struct Microphone {
    publication: RemoteTrackPublication,
    /// Samples that do not fill a chunk yet.
    samples: Vec<i16>,
}

pub(super) struct ParticipantMicrophones<'a> {
    /// Whose session it is: theirs is not among them.
    user: Identity,
    events: &'a mpsc::Sender<AgentEvent>,
    /// Who is listened to.
    wanted: Participants,
    max: usize,
    /// Those that are subscribed to; at most `max`.
    microphones: BTreeMap<Identity, Microphone>,
    tracks: StreamMap<Identity, NativeAudioStream>,
    /// Those that are too many, which was reported.
    refused: BTreeSet<Identity>,
}

impl<'a> ParticipantMicrophones<'a> {
    pub(super) fn new(
        user: &UserId,
        events: &'a mpsc::Sender<AgentEvent>,
        wanted: Participants,
        max: usize,
    ) -> Self {
        Self {
            user: Identity::from(user),
            events,
            wanted,
            max,
            microphones: BTreeMap::new(),
            tracks: StreamMap::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Listens to these from now on.
    pub(super) async fn listen_to(&mut self, wanted: Participants, room: &Room) {
        self.wanted = wanted;
        self.update(room).await;
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a room has many events that are not about its microphones"
    )]
    pub(super) async fn room_event(&mut self, event: &RoomEvent, room: &Room) {
        match event {
            RoomEvent::Connected { .. }
            | RoomEvent::TrackPublished { .. }
            | RoomEvent::TrackUnpublished { .. }
            | RoomEvent::ParticipantDisconnected(_) => self.update(room).await,
            RoomEvent::TrackSubscribed { track: RemoteTrack::Audio(track), publication, .. } => {
                let Some(participant) = self.participant(publication) else { return };
                let options = NativeAudioStreamOptions { queue_size_frames: Some(QUEUE_FRAMES) };
                let audio =
                    NativeAudioStream::with_options(track.rtc_track(), SAMPLE_RATE_HZ as i32, 1, options);
                self.tracks.insert(participant, audio);
            }
            RoomEvent::TrackUnsubscribed { publication, .. } => {
                if let Some(participant) = self.participant(publication) {
                    self.tracks.remove(&participant);
                    self.gone(participant).await;
                }
            }
            RoomEvent::TrackMuted { publication, .. } => {
                let is_muted = |(_, microphone): &(&Identity, &Microphone)| {
                    microphone.publication.sid() == publication.sid()
                };
                let muted =
                    self.microphones.iter().find(is_muted).map(|(participant, _)| participant.clone());
                if let Some(participant) = muted {
                    self.gone(participant).await;
                }
            }
            _ => {}
        }
    }

    /// Subscribes to those that are wanted, as far as there are places, and unsubscribes from the others.
    async fn update(&mut self, room: &Room) {
        let mut found = BTreeMap::new();
        if self.max > 0 && !self.wanted.is_owner() {
            for participant in room.remote_participants().values() {
                if let Some((identity, publication)) = self.wanted_microphone(participant) {
                    found.insert(identity, publication);
                }
            }
        }
        let is_gone = |(identity, microphone): (&Identity, &Microphone)| {
            let still = found.get(identity).is_some_and(|found| found.sid() == microphone.publication.sid());
            (!still).then(|| identity.clone())
        };
        for identity in self.microphones.iter().filter_map(is_gone).collect::<Vec<_>>() {
            self.tracks.remove(&identity);
            if let Some(microphone) = self.microphones.remove(&identity) {
                microphone.publication.set_subscribed(false);
            }
            self.gone(identity).await;
        }
        self.refused.retain(|identity| found.contains_key(identity));
        for (identity, publication) in found {
            if self.microphones.contains_key(&identity) {
                continue;
            }
            if self.microphones.len() < self.max {
                self.refused.remove(&identity);
                publication.set_subscribed(true);
                self.microphones.insert(identity, Microphone { publication, samples: Vec::new() });
            } else if self.refused.insert(identity.clone()) {
                self.send(AgentEvent::ParticipantRefused(identity)).await;
            }
        }
    }

    /// A participant's microphone, if it is to be listened to. Agents of this and other gateways are not.
    fn wanted_microphone(
        &self,
        participant: &RemoteParticipant,
    ) -> Option<(Identity, RemoteTrackPublication)> {
        let identity = Identity::parse(participant.identity().as_str()).ok()?;
        let is_person = participant.kind() != ParticipantKind::Agent && identity != self.user;
        let publications = participant.track_publications();
        let publication = publications.values().find(|publication| is_microphone(publication))?;
        (is_person && self.wanted.include(&identity)).then(|| (identity, publication.clone()))
    }

    /// Whose publication this is, if it is subscribed to.
    fn participant(&self, publication: &RemoteTrackPublication) -> Option<Identity> {
        let is_of =
            |(_, microphone): &(&Identity, &Microphone)| microphone.publication.sid() == publication.sid();
        self.microphones.iter().find(is_of).map(|(participant, _)| participant.clone())
    }

    /// The next 10 ms of one of them; pending where there is none.
    pub(super) async fn frame(&mut self) -> (Identity, Vec<i16>) {
        match self.tracks.next().await {
            Some((participant, frame)) => (participant, frame.data.into_owned()),
            None => std::future::pending().await,
        }
    }

    /// Passes a frame on.
    pub(super) fn forward_frame(&mut self, (participant, frame): (Identity, Vec<i16>)) {
        let Some(microphone) = self.microphones.get_mut(&participant) else { return };
        microphone.samples.extend(frame);
        if microphone.samples.len() < CHUNK_SAMPLES {
            return;
        }
        let chunk = std::mem::take(&mut microphone.samples).into();
        // Half of the queue is for the user's own audio.
        let has_room = self.events.capacity() > QUEUE / 2;
        let event = AgentEvent::ParticipantAudio(participant, chunk);
        if !has_room || self.events.try_send(event).is_err() {
            metrics::counter!(telemetry::AGENT_AUDIO_DROPPED).increment(1);
        }
    }

    /// The room is being left.
    pub(super) async fn close(&mut self) {
        self.tracks.clear();
        for identity in std::mem::take(&mut self.microphones).into_keys() {
            self.send(AgentEvent::ParticipantGone(identity)).await;
        }
    }

    async fn gone(&mut self, participant: Identity) {
        if let Some(microphone) = self.microphones.get_mut(&participant) {
            microphone.samples.clear();
        }
        self.send(AgentEvent::ParticipantGone(participant)).await;
    }

    async fn send(&self, event: AgentEvent) {
        // Fails where the session has ended: the agent is dismissed then.
        let _ = self.events.send(event).await;
    }
}
