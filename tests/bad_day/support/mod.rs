//! A gateway in a process of its own, clients for it, and disks that can be filled.

mod june;
mod small_disk;

use std::time::Duration;

use june_client::{Channel, Event, SessionInfo};
use june_edge::protocol::{
    ToClient,
    edge_v1::{from_client::ConnectionInit, to_client::ConnectionAck},
};

pub use self::{
    june::{June, Launch},
    small_disk::SmallDisk,
};

/// How often what can be repeated is repeated: once, or as often as `make bad-day` says.
pub fn times() -> usize {
    std::env::var("BAD_DAY_TIMES").map_or(1, |times| times.parse().unwrap())
}

/// What should happen soon, on a machine that is busy with other things as well.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("nothing came within 30 s")
}

/// Asks again and again, until there is an answer.
pub async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// A client on an attached control channel.
pub struct Glasses {
    pub channel: Channel,
    pub ack: ConnectionAck,
    pub session: SessionInfo,
}

impl Glasses {
    pub async fn attach(session: SessionInfo) -> Self {
        let opened = Channel::open(&session.control_url, &session.control_token, ConnectionInit::default());
        let (channel, ack) = soon(opened).await.unwrap();
        Self { channel, ack, session }
    }

    /// The next message that `pick` takes; those before it are passed over.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&ToClient) -> Option<T>) -> T {
        soon(async {
            loop {
                match self.channel.next().await {
                    Event::Message(_, message) => {
                        if let Some(picked) = pick(&message) {
                            return picked;
                        }
                    }
                    Event::Audio(_) => {}
                    Event::Closed { code, reason } => panic!("the channel closed: {code} {reason}"),
                }
            }
        })
        .await
    }

    pub async fn say(&mut self, text: &str) {
        let line = format!(r#"{{"type":"say","text":"{text}"}}"#);
        self.channel.writer().send_raw(Ok(line)).await.unwrap();
    }

    /// Types a line, and waits for the whole answer, saved or not. Gives the number of the turn.
    pub async fn ask(&mut self, text: &str) -> u64 {
        self.say(text).await;
        self.wait_for(|message| match message {
            ToClient::AnswerDone { turn_id, .. } => Some(turn_id.0),
            _ => None,
        })
        .await
    }

    /// Waits until a turn is on disk; gives the place of its answer in the history.
    pub async fn turn_saved(&mut self) -> u64 {
        self.wait_for(|message| match message {
            ToClient::TurnSaved { history_seq, .. } => Some(*history_seq),
            _ => None,
        })
        .await
    }

    /// Types a line, and waits until its turn is on disk.
    pub async fn ask_and_save(&mut self, text: &str) -> u64 {
        self.say(text).await;
        self.turn_saved().await
    }
}
