//! The gateway's own participant in a user's LiveKit room: it hears the microphone, and speaks where
//! answers are delivered in the room.
//!
//! A session asks [`Agents`] to be in its room and gets an [`Agent`] to hold and events to hear. The
//! agent joins with a fresh token, comes back by itself when LiveKit was away, and leaves when it is
//! dropped. Agents run on a runtime of their own, so that neither a busy session nor a busy HTTP
//! worker delays sound.

mod connection;
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
    ids::{RoomName, UserId},
    livekit::{
        agent::{connection::RoomTarget, speech_track::SpeechTrack},
        token::TokenIssuer,
    },
    protocol::edge_v1::to_client::MediaSource,
    room::roster,
};

/// Events that wait for a session: more than a second of sound. Beyond that, sound is dropped.
const QUEUE: usize = 64;

/// What an agent has to tell.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// Sound from the user: 16 kHz mono.
    Audio(MediaSource, Pcm),
    /// A source ended, or was muted.
    SourceGone(MediaSource),
    /// It saw something of the other participants.
    Observed(roster::Event),
    /// How it stands with the room.
    State(AgentState),
}

/// The agent's state in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// It is in the room.
    Joined,
    /// It is not, and keeps trying.
    Unreachable,
    /// Another participant took its identity; it does not come back.
    Displaced,
}

/// Sends agents into rooms. Cheap to clone.
#[derive(Clone)]
pub struct Agents {
    runtime: Handle,
    issuer: TokenIssuer,
    url: String,
    backoff: Duration,
    /// The rate of speech in Hz; none where rooms are only listened to.
    speech_rate_hz: Option<u32>,
}

/// Our participant in one room. Dropping it makes it leave.
pub struct Agent {
    /// Its end is what makes the task leave the room.
    _dismiss: oneshot::Sender<()>,
    /// Ends the wait before it tries again.
    retry_now: Arc<Notify>,
    /// Whether the microphone's track is wanted.
    subscribe_microphone: watch::Sender<bool>,
    task: JoinHandle<()>,
    speech_track: Option<SpeechTrack>,
}

impl Agents {
    /// Agents for this LiveKit, running on `runtime`. They speak where there is a rate to speak at, in Hz.
    pub fn new(
        livekit: &LivekitConfig,
        issuer: TokenIssuer,
        runtime: Handle,
        speech_rate_hz: Option<u32>,
    ) -> Self {
        Self {
            runtime,
            issuer,
            url: livekit.internal_url.clone(),
            backoff: livekit.rejoin_backoff,
            speech_rate_hz,
        }
    }

    /// Goes into a user's room, and stays. It subscribes to the microphone where it is to `subscribe_microphone` it.
    pub fn join(
        &self,
        user: &UserId,
        room: &RoomName,
        subscribe_microphone: bool,
    ) -> (Agent, mpsc::Receiver<AgentEvent>) {
        let (events, heard) = mpsc::channel(QUEUE);
        let (subscribe_microphone, subscribes) = watch::channel(subscribe_microphone);
        let (dismiss, dismissed) = oneshot::channel();
        let speech_track = self.speech_rate_hz.map(SpeechTrack::new);
        let target = RoomTarget {
            url: self.url.clone(),
            issuer: self.issuer.clone(),
            user: user.clone(),
            room: room.clone(),
            backoff: self.backoff,
            speech_track: speech_track.clone(),
            retry_now: Arc::default(),
            subscribes,
        };
        let retry_now = target.retry_now.clone();
        let task = self.runtime.spawn(connection::keep(target, events, dismissed));
        (Agent { _dismiss: dismiss, retry_now, subscribe_microphone, task, speech_track }, heard)
    }
}

impl Agent {
    /// Says samples in the room: mono, at the rate of speech. They are dropped where it does not speak.
    pub fn publish(&self, samples: &[i16]) {
        if let Some(speech_track) = &self.speech_track {
            speech_track.push(samples);
        }
    }

    /// Falls silent at once.
    pub fn clear_speech(&self) {
        if let Some(speech_track) = &self.speech_track {
            speech_track.clear();
        }
    }

    /// Hears the microphone's track from now on, or no longer. Data packets come either way.
    pub fn subscribe_microphone(&self, subscribe_microphone: bool) {
        self.subscribe_microphone.send_replace(subscribe_microphone);
    }

    /// Where it waits before it tries again to join: it waits no longer.
    pub fn retry_now(&self) {
        self.retry_now.notify_waiters();
    }

    /// Whether it will not come back by itself.
    pub fn has_given_up(&self) -> bool {
        self.task.is_finished()
    }
}
