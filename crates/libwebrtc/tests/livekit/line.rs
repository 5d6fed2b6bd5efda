//! A line that loses packets: a UDP proxy in front of a livekit-server, which names it as its address. Shared with the
//! gateway's benchmark of losses.
//!
//! ```text
//!   client ──▶ 127.0.0.2:port ──▶ 127.0.0.1:port   everything
//!   client ◀── 127.0.0.2:port ◀── 127.0.0.1:port   media with losses, the rest whole
//! ```
//! Only what the server sends is lost, so that a publisher's sound reaches the server as it was sent. Both ways take
//! their time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

/// Where clients find the server.
pub const ADDRESS: &str = "127.0.0.2";

/// What is lost of the media.
#[allow(dead_code, reason = "each of those who share this needs some")]
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// Nothing.
    None,
    /// Each packet with this probability.
    Random(f64),
    /// This share of packets, in runs of this mean length: two states, good and bad (Gilbert).
    Bursts(f64, f64),
    /// So many in a row.
    Regular {
        /// Packets that are lost in a row.
        lost: u32,
        /// Packets from one such row's beginning to the next.
        of: u32,
    },
}

/// The loss at work, and its chance.
struct State {
    loss: Loss,
    chance: StdRng,
    bad: bool,
    /// Media packets since the loss was set, and how many of them were lost.
    sent: u32,
    lost: u32,
}

impl State {
    fn loses(&mut self) -> bool {
        let lost = match self.loss {
            Loss::None => false,
            Loss::Random(share) => self.chance.random_bool(share),
            Loss::Bursts(share, length) => {
                let leave = 1.0 / length;
                let enter = leave * share / (1.0 - share);
                self.bad = self.chance.random_bool(if self.bad { 1.0 - leave } else { enter });
                self.bad
            }
            Loss::Regular { lost, of } => self.sent % of >= of - lost,
        };
        self.sent += 1;
        self.lost += u32::from(lost);
        lost
    }
}

/// See the module. It ends with the runtime.
#[derive(Clone)]
pub struct Line {
    state: Arc<Mutex<State>>,
    /// One way.
    latency: Duration,
}

impl Line {
    /// Stands before the server at this UDP port. Each way takes `latency`.
    pub async fn start(port: u16, latency: Duration, seed: u64) -> Self {
        let chance = StdRng::seed_from_u64(seed);
        let state = State { loss: Loss::None, chance, bad: false, sent: 0, lost: 0 };
        let line = Self { state: Arc::new(Mutex::new(state)), latency };
        let front = Arc::new(UdpSocket::bind((ADDRESS, port)).await.unwrap());
        tokio::spawn(line.clone().forward(front, SocketAddr::from(([127, 0, 0, 1], port))));
        line
    }

    /// Loses so much from now on.
    pub fn lose(&self, loss: Loss) {
        let mut state = self.state.lock().unwrap();
        (state.loss, state.sent, state.lost) = (loss, 0, 0);
    }

    /// How much it lost since then, in percent.
    pub fn lost_percent(&self) -> f64 {
        let state = self.state.lock().unwrap();
        assert!(state.sent > 0, "no media came this way");
        100.0 * f64::from(state.lost) / f64::from(state.sent)
    }

    async fn forward(self, front: Arc<UdpSocket>, server: SocketAddr) {
        let mut clients: HashMap<SocketAddr, UnboundedSender<(Instant, Vec<u8>)>> = HashMap::new();
        let mut packet = [0; 2048];
        loop {
            let (length, client) = front.recv_from(&mut packet).await.unwrap();
            let way = match clients.entry(client) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let back = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap());
                    tokio::spawn(self.clone().answer(back.clone(), front.clone(), client));
                    new.insert(way(back, server))
                }
            };
            let _ = way.send((Instant::now() + self.latency, packet[..length].to_vec()));
        }
    }

    async fn answer(self, back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
        let way = way(front, client);
        let mut packet = [0; 2048];
        while let Ok(length) = back.recv(&mut packet).await {
            // RTP and RTCP (RFC 7983 §7); ICE and DTLS are not what is measured here.
            let is_media = (128..=191).contains(&packet[0]);
            if !(is_media && self.state.lock().unwrap().loses()) {
                let _ = way.send((Instant::now() + self.latency, packet[..length].to_vec()));
            }
        }
    }
}

/// Sends packets in their order, each when it is due.
fn way(from: Arc<UdpSocket>, to: SocketAddr) -> UnboundedSender<(Instant, Vec<u8>)> {
    let (way, mut packets) = unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((due, packet)) = packets.recv().await {
            sleep_until(due).await;
            let _ = from.send_to(&packet, to).await;
        }
    });
    way
}
