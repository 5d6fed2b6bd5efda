//! The microphone in the LiveKit room. It runs in a task of its own, because joining takes a second and more.

use std::time::Duration;

use june_protocol::to_client::LivekitInfo;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

#[cfg(not(feature = "livekit"))]
use crate::ClientError;
use crate::clock;
#[cfg(feature = "livekit")]
use crate::microphone::RoomMicrophone;

/// Frames that wait to be published: one second. Frames beyond that are dropped, since they would be late.
const FRAMES: usize = 50;

/// The state of the LiveKit room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomState {
    /// Not joined.
    Out,
    /// Joining.
    Joining,
    /// Joined; the microphone is published.
    In {
        /// The URL of the LiveKit server.
        url: String,
        /// The identity in the room.
        identity: String,
        /// How long joining took.
        took: Duration,
    },
    /// Joining failed. The next attempt follows the next `livekit_info`.
    Failed(String),
}

/// A handle of the task. Dropping it leaves the room.
pub(crate) struct Room {
    tokens: mpsc::Sender<LivekitInfo>,
    frames: mpsc::Sender<Vec<i16>>,
    state: watch::Receiver<RoomState>,
    task: JoinHandle<()>,
}

impl Room {
    /// A handle that has joined no room.
    pub(crate) fn new() -> Self {
        let (tokens, new_tokens) = mpsc::channel(4);
        let (frames, to_send) = mpsc::channel(FRAMES);
        let (new_state, state) = watch::channel(RoomState::Out);
        Self { tokens, frames, state, task: tokio::spawn(run(new_tokens, to_send, new_state)) }
    }

    /// Joins with a new token; leaves the room first if joined.
    pub(crate) fn join(&self, info: LivekitInfo) {
        // Dropped if four tokens are waiting: the gateway sends new ones.
        let _ = self.tokens.try_send(info);
    }

    /// Whether audio can be sent to the room.
    pub(crate) fn is_in(&self) -> bool {
        matches!(*self.state.borrow(), RoomState::In { .. })
    }

    /// Whether no token came yet.
    pub(crate) fn is_out(&self) -> bool {
        matches!(*self.state.borrow(), RoomState::Out)
    }

    /// Publishes samples; drops them if too many wait.
    pub(crate) fn send(&self, samples: Vec<i16>) {
        let _ = self.frames.try_send(samples);
    }

    /// Waits for the next change of state. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> RoomState {
        if self.state.changed().await.is_err() {
            // The task ends with this handle only.
            std::future::pending::<()>().await;
        }
        self.state.borrow_and_update().clone()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut tokens: mpsc::Receiver<LivekitInfo>,
    mut frames: mpsc::Receiver<Vec<i16>>,
    state: watch::Sender<RoomState>,
) {
    let mut published: Option<RoomMicrophone> = None;
    loop {
        tokio::select! {
            token = tokens.recv() => {
                let Some(info) = token else { break };
                if let Some(published) = published.take() {
                    published.leave().await;
                }
                state.send_replace(RoomState::Joining);
                let began = clock::now();
                let joined = Box::pin(RoomMicrophone::join(&info.url, &info.token)).await;
                state.send_replace(match joined {
                    Ok(joined) => {
                        published = Some(joined);
                        let identity = info.identity.as_str().to_owned();
                        RoomState::In { url: info.url, identity, took: clock::now() - began }
                    }
                    Err(error) => RoomState::Failed(error.to_string()),
                });
            }
            frame = frames.recv() => {
                let Some(frame) = frame else { break };
                if let Some(published) = &published
                    && let Err(error) = published.send(&frame).await
                {
                    tracing::debug!(%error, "frame not published");
                }
            }
        }
    }
    if let Some(published) = published {
        published.leave().await;
    }
}

/// The microphone of a build without LiveKit: joining fails.
#[cfg(not(feature = "livekit"))]
enum RoomMicrophone {}

#[cfg(not(feature = "livekit"))]
impl RoomMicrophone {
    async fn join(_: &str, _: &str) -> Result<Self, ClientError> {
        Err(ClientError::Livekit("built without the feature `livekit`".into()))
    }

    async fn send(&self, _: &[i16]) -> Result<(), ClientError> {
        match *self {}
    }

    async fn leave(self) {
        match self {}
    }
}
