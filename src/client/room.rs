//! The microphone in the LiveKit room, on a task of its own: joining takes a second and more, and sound
//! must not wait for it.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{client::microphone::Published, clock, protocol::edge_v1::to_client::LivekitInfo};

/// Frames that wait to be published: a second. What does not fit is dropped, since it would be late.
const FRAMES: usize = 50;

/// How the room is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomState {
    /// Nobody asked for it.
    Out,
    /// On the way in.
    Joining,
    /// The track is published.
    In {
        /// Which server.
        url: String,
        /// As whom.
        identity: String,
        /// How long it took.
        took: Duration,
    },
    /// It did not work; the next token is the next attempt.
    Failed(String),
}

/// A hold on the task. It leaves the room when this is dropped.
pub struct Room {
    tokens: mpsc::Sender<LivekitInfo>,
    frames: mpsc::Sender<Vec<i16>>,
    state: watch::Receiver<RoomState>,
    task: JoinHandle<()>,
}

impl Room {
    /// Nowhere yet.
    pub fn new() -> Self {
        let (tokens, new_tokens) = mpsc::channel(4);
        let (frames, to_send) = mpsc::channel(FRAMES);
        let (tell, state) = watch::channel(RoomState::Out);
        Self { tokens, frames, state, task: tokio::spawn(run(new_tokens, to_send, tell)) }
    }

    /// A token came: joins, again where it is in already.
    pub fn join(&self, info: LivekitInfo) {
        // Four that wait are four too many.
        let _ = self.tokens.try_send(info);
    }

    /// Whether sound goes this way.
    pub fn is_in(&self) -> bool {
        matches!(*self.state.borrow(), RoomState::In { .. })
    }

    /// Whether there was a token.
    pub fn is_out(&self) -> bool {
        matches!(*self.state.borrow(), RoomState::Out)
    }

    /// Sends samples.
    pub fn send(&self, samples: Vec<i16>) {
        let _ = self.frames.try_send(samples);
    }

    /// The next change.
    pub async fn changed(&mut self) -> RoomState {
        if self.state.changed().await.is_err() {
            // The task never ends before this does.
            std::future::pending::<()>().await;
        }
        self.state.borrow_and_update().clone()
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
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
    tell: watch::Sender<RoomState>,
) {
    let mut published: Option<Published> = None;
    loop {
        tokio::select! {
            token = tokens.recv() => {
                let Some(info) = token else { break };
                if let Some(published) = published.take() {
                    published.leave().await;
                }
                tell.send_replace(RoomState::Joining);
                let began = clock::now();
                let joined = Box::pin(Published::join(&info.url, &info.token)).await;
                tell.send_replace(match joined {
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
                    tracing::debug!(%error, "a frame was not published");
                }
            }
        }
    }
    if let Some(published) = published {
        published.leave().await;
    }
}
