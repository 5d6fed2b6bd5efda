//! Keeps our participant in a room: joins, listens to the user's microphone, comes back when LiveKit
//! was away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use livekit::{
    DataPacketKind, DisconnectReason, Room, RoomError, RoomEvent, RoomOptions,
    prelude::{Participant, RemoteParticipant, RemoteTrack, RemoteTrackPublication, TrackKind, TrackSource},
    webrtc::audio_stream::native::{NativeAudioStream, NativeAudioStreamOptions},
};
use rand::Rng;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::{
    audio::{SAMPLE_RATE_HZ, data_packet_buffer::Packets},
    clock,
    ids::{Identity, RoomName, UserId},
    livekit::{
        agent::{AgentEvent, AgentState, speech_track::SpeechTrack},
        token::{MICROPHONE_TRACK, TokenIssuer},
    },
    protocol::edge_v1::to_client::MediaSource,
    room::roster,
    telemetry,
};

/// Sound goes to the session in runs of this many samples (20 ms): half as many messages as frames.
const RUN_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 50;

/// Frames of 10 ms that wait for us: half a second, so that a busy moment of the machine loses nothing.
const QUEUE_FRAMES: usize = 50;

/// The longest wait between two attempts to join.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How an agent gets into its room.
pub(super) struct RoomTarget {
    /// Where LiveKit is.
    pub url: String,
    pub issuer: TokenIssuer,
    /// Whose microphone.
    pub user: UserId,
    pub room: RoomName,
    /// The shortest wait between two attempts.
    pub backoff: Duration,
    /// What answers are spoken with, where the room hears them.
    pub speech_track: Option<SpeechTrack>,
    /// Ends the wait before the next attempt.
    pub retry_now: Arc<Notify>,
    /// Whether the microphone's track is to be heard.
    pub subscribes: watch::Receiver<bool>,
}

/// Why a visit ended.
enum Left {
    /// The session wants no agent any more.
    Dismissed,
    /// Another participant took our identity.
    Displaced,
    /// LiveKit went away, or could not be reached.
    Lost(String),
}

/// Keeps an agent in its room until it is dismissed or displaced. A fresh token for every join.
pub(super) async fn keep(
    target: RoomTarget,
    events: mpsc::Sender<AgentEvent>,
    mut dismissed: oneshot::Receiver<()>,
) {
    let mut failures = 0;
    loop {
        let mut joined = false;
        match visit(&target, &events, &mut dismissed, &mut joined).await {
            Left::Dismissed => return,
            Left::Displaced => {
                tracing::warn!(room.name = %target.room, "another participant took the agent's identity, it stays away");
                let _ = events.send(AgentEvent::State(AgentState::Displaced)).await;
                return;
            }
            Left::Lost(cause) => {
                failures = if joined { 0 } else { failures + 1 };
                tracing::warn!(room.name = %target.room, cause, failures, "agent not in its room, tries again");
                metrics::counter!(telemetry::AGENT_LOST).increment(1);
                if events.send(AgentEvent::State(AgentState::Unreachable)).await.is_err() {
                    return;
                }
            }
        }
        let wait = backoff(target.backoff, failures, rand::rng().random());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = target.retry_now.notified() => {}
            _ = &mut dismissed => return,
        }
    }
}

/// Doubles with each failure; `chance` (0 to 1) adds up to a half, so that a thousand agents don't come
/// back at the same moment. Never under the shortest wait, never over [`MAX_BACKOFF`].
fn backoff(shortest: Duration, failures: u32, chance: f64) -> Duration {
    let longest = MAX_BACKOFF.div_f64(1.5).max(shortest);
    let doubled = shortest.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    doubled.mul_f64(1.0 + chance / 2.0)
}

async fn visit(
    target: &RoomTarget,
    events: &mpsc::Sender<AgentEvent>,
    dismissed: &mut oneshot::Receiver<()>,
    joined: &mut bool,
) -> Left {
    let token = target.issuer.agent(&target.user, &target.room);
    let mut options = RoomOptions::default();
    options.auto_subscribe = false;
    // Our own loop tries again, with a fresh token.
    options.join_retries = 0;
    let connected = tokio::select! {
        connected = Room::connect(&target.url, &token.jwt, options) => connected,
        _ = &mut *dismissed => return Left::Dismissed,
    };
    let (room, mut news) = match connected {
        Ok(connected) => connected,
        Err(error) => return Left::Lost(sentence(&error)),
    };
    *joined = true;
    if let Some(speech_track) = &target.speech_track
        && let Err(error) = speech_track.open(&room).await
    {
        return Left::Lost(sentence(&error));
    }
    tracing::info!(room.name = %target.room, "agent joined");
    let mut subscribes = target.subscribes.clone();
    let mut subscriber = MicrophoneSubscriber {
        user: Identity::from(&target.user),
        events,
        subscribes: *subscribes.borrow_and_update(),
        publication: None,
        microphone: None,
        samples: Vec::new(),
        packets: Packets::default(),
        packets_heard: false,
    };
    if events.send(AgentEvent::State(AgentState::Joined)).await.is_err() {
        return Left::Dismissed;
    }
    let left = loop {
        let packets_due = subscriber.packets.deadline();
        tokio::select! {
            event = news.recv() => match event {
                Some(RoomEvent::Disconnected { reason: DisconnectReason::DuplicateIdentity }) => break Left::Displaced,
                Some(RoomEvent::Disconnected { reason }) => break Left::Lost(format!("disconnected: {reason:?}")),
                Some(event) => {
                    if let Some(observation) = observation(&event)
                        && events.try_send(AgentEvent::Observed(observation)).is_err()
                    {
                        tracing::trace!("a observation of the room is lost: webhooks and lists tell, too");
                    }
                    subscriber.room_event(event).await;
                }
                None => break Left::Lost("the room's events ended".into()),
            },
            frame = subscriber.frame() => subscriber.hear(frame).await,
            () = until(packets_due) => subscriber.hear_packets(),
            Ok(()) = subscribes.changed() => {
                let wanted = *subscribes.borrow_and_update();
                subscriber.want(wanted);
            }
            _ = &mut *dismissed => break Left::Dismissed,
        }
    };
    subscriber.lose_microphone().await;
    subscriber.lose_packets().await;
    if let Err(error) = room.close().await {
        tracing::debug!(%error, "leaving a room that was gone");
    }
    left
}

/// What an agent hears in its room.
struct MicrophoneSubscriber<'a> {
    /// Whose microphone counts; others in the room are not listened to.
    user: Identity,
    events: &'a mpsc::Sender<AgentEvent>,
    /// Whether the microphone's track is wanted.
    subscribes: bool,
    /// The microphone's track, wanted or not.
    publication: Option<RemoteTrackPublication>,
    /// The microphone's track that is subscribed to, and its sound.
    microphone: Option<(String, NativeAudioStream)>,
    /// Samples that do not fill a run yet.
    samples: Vec<i16>,
    /// The microphone's sound that comes in data packets.
    packets: Packets,
    /// There was some.
    packets_heard: bool,
}

impl MicrophoneSubscriber<'_> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a room has many events that are not about its microphone"
    )]
    async fn room_event(&mut self, event: RoomEvent) {
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
                self.lose_microphone().await;
                let options = NativeAudioStreamOptions { queue_size_frames: Some(QUEUE_FRAMES) };
                let sound =
                    NativeAudioStream::with_options(track.rtc_track(), SAMPLE_RATE_HZ as i32, 1, options);
                self.microphone = Some((publication.sid().to_string(), sound));
            }
            RoomEvent::TrackUnsubscribed { publication, .. }
            | RoomEvent::TrackUnpublished { publication, .. }
                if self.is_open(&publication.sid().to_string()) =>
            {
                self.lose_microphone().await;
            }
            RoomEvent::TrackMuted { participant: Participant::Remote(_), publication }
                if self.is_open(&publication.sid().to_string()) =>
            {
                self.tell(AgentEvent::SourceGone(MediaSource::Livekit)).await;
            }
            RoomEvent::DataReceived { payload, topic, kind: DataPacketKind::Lossy, participant }
                if topic.as_deref().is_none_or(|topic| topic.is_empty() || topic == MICROPHONE_TRACK) =>
            {
                // LiveKit says who sent it; a packet without a sender came from its server API.
                let sender = participant.map(|participant| participant.identity());
                if sender.is_some_and(|sender| sender.as_str() == self.user.as_str()) {
                    self.packets.push(&payload, clock::now());
                } else {
                    metrics::counter!(telemetry::PACKETS_SPOOFED).increment(1);
                }
            }
            RoomEvent::ParticipantDisconnected(participant) if self.is_user(&participant) => {
                self.lose_packets().await;
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

    /// The microphone's track is wanted, or is not any more.
    fn want(&mut self, hear: bool) {
        self.subscribes = hear;
        if let Some(publication) = &self.publication {
            publication.set_subscribed(hear);
        }
    }

    fn is_user(&self, participant: &RemoteParticipant) -> bool {
        participant.identity().as_str() == self.user.as_str()
    }

    /// The track `mic` of the user, or one whose source is a microphone (browsers give it no name).
    fn is_microphone(&self, participant: &RemoteParticipant, publication: &RemoteTrackPublication) -> bool {
        self.is_user(participant)
            && publication.kind() == TrackKind::Audio
            && (publication.name() == MICROPHONE_TRACK || publication.source() == TrackSource::Microphone)
    }

    fn is_open(&self, sid: &str) -> bool {
        self.microphone.as_ref().is_some_and(|(open, _)| open == sid)
    }

    /// The next 10 ms of the microphone; never, while there is none.
    async fn frame(&mut self) -> Option<Vec<i16>> {
        match &mut self.microphone {
            Some((_, sound)) => sound.next().await.map(|frame| frame.data.into_owned()),
            None => std::future::pending().await,
        }
    }

    async fn hear(&mut self, frame: Option<Vec<i16>>) {
        let Some(frame) = frame else {
            return self.lose_microphone().await;
        };
        self.samples.extend(frame);
        if self.samples.len() >= RUN_SAMPLES {
            let run = std::mem::take(&mut self.samples);
            if self.events.try_send(AgentEvent::Audio(MediaSource::Livekit, run.into())).is_err() {
                // A session that does not keep up with real time: what it missed is gone, as it is for a
                // person who does not listen.
                metrics::counter!(telemetry::AGENT_AUDIO_DROPPED).increment(1);
            }
        }
    }

    /// Hands on the run of packets that is due.
    fn hear_packets(&mut self) {
        let Some(run) = self.packets.due(clock::now()) else { return };
        self.packets_heard = true;
        if self.events.try_send(AgentEvent::Audio(MediaSource::Data, run.into())).is_err() {
            metrics::counter!(telemetry::AGENT_AUDIO_DROPPED).increment(1);
        }
    }

    /// Their sender is gone.
    async fn lose_packets(&mut self) {
        self.packets = Packets::default();
        if std::mem::take(&mut self.packets_heard) {
            self.tell(AgentEvent::SourceGone(MediaSource::Data)).await;
        }
    }

    async fn lose_microphone(&mut self) {
        self.samples.clear();
        if self.microphone.take().is_some() {
            self.tell(AgentEvent::SourceGone(MediaSource::Livekit)).await;
        }
    }

    async fn tell(&self, event: AgentEvent) {
        // The session is gone: we are dismissed in a moment.
        let _ = self.events.send(event).await;
    }
}

/// Waits until then; for ever, where there is nothing to wait for.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What an event says about who is in the room.
#[expect(clippy::wildcard_enum_match_arm, reason = "a room has many events that are not about who is there")]
fn observation(event: &RoomEvent) -> Option<roster::Event> {
    let observed = |participant: &RemoteParticipant, there| {
        let (sid, identity) = (participant.sid().to_string(), participant.identity().to_string());
        Some(roster::Event::ObservedByAgent { sid, identity, there })
    };
    match event {
        RoomEvent::ParticipantActive(participant) => observed(participant, true),
        RoomEvent::ParticipantDisconnected(participant) => observed(participant, false),
        RoomEvent::TrackMuted { participant: Participant::Remote(participant), publication } => {
            muted(participant, publication.sid().to_string(), true)
        }
        RoomEvent::TrackUnmuted { participant: Participant::Remote(participant), publication } => {
            muted(participant, publication.sid().to_string(), false)
        }
        _ => None,
    }
}

fn muted(participant: &RemoteParticipant, track_sid: String, muted: bool) -> Option<roster::Event> {
    Some(roster::Event::Muted { sid: participant.sid().to_string(), track_sid, muted })
}

/// The cause of a failed join, in a line: LiveKit's errors nest.
fn sentence(error: &RoomError) -> String {
    error.to_string().lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_joining_again_grows_and_is_spread() {
        let shortest = Duration::from_secs(2);
        assert_eq!(backoff(shortest, 0, 0.0), shortest);
        assert_eq!(backoff(shortest, 1, 0.0), shortest);
        assert_eq!(backoff(shortest, 1, 1.0), Duration::from_secs(3));
        assert_eq!(backoff(shortest, 3, 0.0), Duration::from_secs(8));
        assert_eq!(backoff(shortest, 99, 0.0), Duration::from_secs(20));
        assert_eq!(backoff(shortest, 99, 1.0), MAX_BACKOFF);
    }
}
