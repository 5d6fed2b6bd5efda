//! The gateway's own participant in a user's LiveKit room: it hears the microphone, and speaks where
//! answers are delivered in the room.
//!
//! A session asks [`Agents`] to be in its room and gets an [`Agent`] to hold and events to hear. The
//! agent joins with a fresh token, comes back by itself when LiveKit was away, and leaves when it is
//! dropped. Agents run on a runtime of their own, so that neither a busy session nor a busy HTTP
//! worker delays sound.

mod connection;
mod mouth;
pub mod packets;
pub mod token;

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::{connection::Place, mouth::Mouth, token::TokenIssuer};
use crate::{
    ai::Pcm,
    config::LivekitConfig,
    ids::{RoomName, UserId},
    protocol::to_client::MediaSource,
    room::roster,
    session::machine::AgentNews,
};

/// Events that wait for a session: more than a second of sound. Beyond that, sound is dropped.
const QUEUE: usize = 64;

/// What an agent has to tell.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// Sound from the user: 16 kHz mono.
    Sound(MediaSource, Pcm),
    /// A source ended, or was muted.
    Gone(MediaSource),
    /// It saw something of the other participants.
    Sight(roster::Event),
    /// How it stands with the room.
    News(AgentNews),
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
    hurry: Arc<Notify>,
    /// Whether the microphone's track is wanted.
    hear: watch::Sender<bool>,
    task: JoinHandle<()>,
    mouth: Option<Mouth>,
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

    /// Goes into a user's room, and stays. It subscribes to the microphone where it is to `hear` it.
    pub fn join(&self, user: &UserId, room: &RoomName, hear: bool) -> (Agent, mpsc::Receiver<AgentEvent>) {
        let (events, heard) = mpsc::channel(QUEUE);
        let (hear, hears) = watch::channel(hear);
        let (dismiss, dismissed) = oneshot::channel();
        let mouth = self.speech_rate_hz.map(Mouth::new);
        let place = Place {
            url: self.url.clone(),
            issuer: self.issuer.clone(),
            user: user.clone(),
            room: room.clone(),
            backoff: self.backoff,
            mouth: mouth.clone(),
            hurry: Arc::default(),
            hears,
        };
        let hurry = place.hurry.clone();
        let task = self.runtime.spawn(connection::keep(place, events, dismissed));
        (Agent { _dismiss: dismiss, hurry, hear, task, mouth }, heard)
    }
}

impl Agent {
    /// Says samples in the room: mono, at the rate of speech. They are dropped where it does not speak.
    pub fn say(&self, samples: &[i16]) {
        if let Some(mouth) = &self.mouth {
            mouth.say(samples);
        }
    }

    /// Falls silent at once.
    pub fn hush(&self) {
        if let Some(mouth) = &self.mouth {
            mouth.hush();
        }
    }

    /// Hears the microphone's track from now on, or no longer. Data packets come either way.
    pub fn hear(&self, hear: bool) {
        self.hear.send_replace(hear);
    }

    /// Where it waits before it tries again to join: it waits no longer.
    pub fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    /// Whether it will not come back by itself.
    pub fn has_given_up(&self) -> bool {
        self.task.is_finished()
    }
}
