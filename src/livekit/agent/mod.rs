//! The gateway's own participant in a user's LiveKit room: it receives the microphone, and publishes responses
//! where those are delivered in the room.
//!
//! [`Agents::join`] gives a session an [`Agent`] to hold and its events. The agent joins with a new token, joins
//! again when the connection is lost, and leaves when it is dropped. Agents run on a runtime of their own, so
//! that neither a busy session nor a busy HTTP worker delays audio.

mod connection;
mod microphone_subscriber;
mod participant_microphones;
mod speech_track;

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    audio::Pcm,
    config::LivekitConfig,
    ids::{Identity, RoomName, UserId},
    livekit::{
        agent::{connection::RoomTarget, speech_track::SpeechTrack},
        token::TokenIssuer,
    },
    outcomes::Outcome,
    protocol::{Participants, edge_v1::to_client::MediaSource},
    room::roster,
};

/// Events that wait for a session: more than a second of audio. Beyond that, audio is dropped.
const QUEUE: usize = 64;

/// What an agent reports.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// The user's audio: 16 kHz mono.
    Audio(MediaSource, Pcm),
    /// A source ended, or was muted.
    SourceGone(MediaSource),
    /// Another participant's audio: 16 kHz mono.
    ParticipantAudio(Identity, Pcm),
    /// Another participant's microphone ended, or was muted.
    ParticipantGone(Identity),
    /// Another participant's microphone is one too many.
    ParticipantRefused(Identity),
    /// It observed the other participants.
    Observed(roster::Event),
    State(AgentState),
}

/// The agent's state in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    Joined,
    /// It is not in the room, and keeps trying.
    Unreachable,
    /// Another participant joined with its identity; it does not join again.
    Displaced,
}

/// Joins rooms. Cheap to clone.
#[derive(Clone)]
pub struct Agents {
    runtime: Handle,
    issuer: TokenIssuer,
    url: String,
    backoff: Duration,
    outcome: Outcome,
    /// The sample rate of responses; none where they are not published in rooms.
    speech_rate_hz: Option<u32>,
    /// Other participants who are listened to at once.
    max_participants: usize,
}

/// Our participant in one room. Dropping it makes it leave.
pub struct Agent {
    /// Dropping it makes the task leave the room.
    _dismiss: oneshot::Sender<()>,
    /// Ends the wait before the next attempt.
    retry_now: Arc<Notify>,
    /// Whether to subscribe to the microphone's track.
    subscribe_microphone: watch::Sender<bool>,
    /// Whose microphones to listen to beside the user's.
    participants: watch::Sender<Participants>,
    task: JoinHandle<()>,
    speech_track: Option<SpeechTrack>,
}

impl Agents {
    /// Agents for this LiveKit, running on `runtime`. They publish responses where `speech_rate_hz` is set.
    pub(crate) fn new(
        livekit: &LivekitConfig,
        issuer: TokenIssuer,
        runtime: Handle,
        outcome: Outcome,
        speech_rate_hz: Option<u32>,
        max_participants: usize,
    ) -> Self {
        Self {
            runtime,
            issuer,
            url: livekit.internal_url.clone(),
            backoff: livekit.rejoin_backoff,
            outcome,
            speech_rate_hz,
            max_participants,
        }
    }

    /// Joins a user's room, and stays in it.
    pub fn join(
        &self,
        user: &UserId,
        room: &RoomName,
        subscribe_microphone: bool,
        participants: Option<Participants>,
    ) -> (Agent, mpsc::Receiver<AgentEvent>) {
        let (events, received) = mpsc::channel(QUEUE);
        let (subscribe_microphone, subscribes) = watch::channel(subscribe_microphone);
        let (participants, listens_to) = watch::channel(participants.unwrap_or(Participants::OWNER));
        let (dismiss, dismissed) = oneshot::channel();
        let speech_track = self.speech_rate_hz.map(SpeechTrack::new);
        let target = RoomTarget {
            url: self.url.clone(),
            issuer: self.issuer.clone(),
            user: user.clone(),
            room: room.clone(),
            backoff: self.backoff,
            outcome: self.outcome.clone(),
            speech_track: speech_track.clone(),
            retry_now: Arc::default(),
            subscribes,
            listens_to,
            max_participants: self.max_participants,
        };
        let retry_now = target.retry_now.clone();
        let task = self.runtime.spawn(connection::keep(target, events, dismissed));
        let agent =
            Agent { _dismiss: dismiss, retry_now, subscribe_microphone, participants, task, speech_track };
        (agent, received)
    }
}

impl Agent {
    /// Publishes mono samples at the speech rate. They are dropped where responses are not published in the room.
    pub fn publish(&self, samples: &[i16]) {
        if let Some(speech_track) = &self.speech_track {
            speech_track.push(samples);
        }
    }

    /// Drops the samples that are not played yet.
    pub fn clear_speech(&self) {
        if let Some(speech_track) = &self.speech_track {
            speech_track.clear();
        }
    }

    /// Subscribes to the microphone's track from now on, or no longer. Data packets are received either way.
    pub fn subscribe_microphone(&self, subscribe_microphone: bool) {
        self.subscribe_microphone.send_replace(subscribe_microphone);
    }

    /// Listens to the microphones of these from now on, beside the user's.
    pub fn listen_to(&self, participants: Option<Participants>) {
        self.participants.send_replace(participants.unwrap_or(Participants::OWNER));
    }

    /// Ends the wait before the next attempt to join.
    pub fn retry_now(&self) {
        self.retry_now.notify_waiters();
    }

    /// Whether it will not join again by itself.
    pub fn has_given_up(&self) -> bool {
        self.task.is_finished()
    }
}
