//! A network emulator with packet loss and latency: a UDP proxy in front of a livekit-server, which signals the proxy's
//! address as its own.
//!
//! ```text
//!   client ──▶ 127.0.0.2:port ──▶ 127.0.0.1:port   no loss
//!   client ◀── 127.0.0.2:port ◀── 127.0.0.1:port   loss of RTP and RTCP
//! ```
//! Packets are lost only from the server to the client, so that published audio reaches the server intact. The latency
//! applies in both directions.

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

/// Address of the proxy.
pub const PROXY_ADDRESS: &str = "127.0.0.2";

/// A model of packet loss.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// No loss.
    None,
    /// Independent losses with this probability.
    Random(f64),
    /// Burst losses: the fraction of lost packets and the mean burst length (Gilbert model with two states).
    Bursts(f64, f64),
    /// Periodic burst losses.
    Regular {
        /// Consecutive packets lost per period.
        lost: u32,
        /// Packets per period.
        of: u32,
    },
}

/// State of the loss model.
struct State {
    loss: Loss,
    rng: StdRng,
    bad: bool,
    /// Media packets since the loss model was set, including lost ones.
    sent: u32,
    /// Media packets lost since then.
    lost: u32,
}

impl State {
    fn loses(&mut self) -> bool {
        let lost = match self.loss {
            Loss::None => false,
            Loss::Random(share) => self.rng.random_bool(share),
            Loss::Bursts(share, length) => {
                let leave = 1.0 / length;
                let enter = leave * share / (1.0 - share);
                self.bad = self.rng.random_bool(if self.bad { 1.0 - leave } else { enter });
                self.bad
            }
            Loss::Regular { lost, of } => self.sent % of >= of - lost,
        };
        self.sent += 1;
        self.lost += u32::from(lost);
        lost
    }
}

/// The network emulator; see the module documentation. It runs until the runtime ends.
#[derive(Clone)]
pub struct LossyNetwork {
    state: Arc<Mutex<State>>,
    /// One-way latency.
    latency: Duration,
}

impl LossyNetwork {
    /// Starts a proxy for the server at this UDP port. `latency` is one-way; `seed` is for the random losses.
    ///
    /// # Panics
    /// If the port is not free on [`PROXY_ADDRESS`].
    pub async fn start(port: u16, latency: Duration, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let state = State { loss: Loss::None, rng, bad: false, sent: 0, lost: 0 };
        let network = Self { state: Arc::new(Mutex::new(state)), latency };
        let front = Arc::new(UdpSocket::bind((PROXY_ADDRESS, port)).await.expect("the proxy works"));
        tokio::spawn(network.clone().forward(front, SocketAddr::from(([127, 0, 0, 1], port))));
        network
    }

    /// Sets the loss model and resets the counters.
    ///
    /// # Panics
    /// If the proxy panicked.
    pub fn lose(&self, loss: Loss) {
        let mut state = self.state.lock().expect("the proxy works");
        (state.loss, state.sent, state.lost) = (loss, 0, 0);
    }

    /// Loss since the last call of [`Self::lose`], in percent of media packets.
    ///
    /// # Panics
    /// If no media packets were forwarded.
    pub fn lost_percent(&self) -> f64 {
        let state = self.state.lock().expect("the proxy works");
        assert!(state.sent > 0, "no media packets were forwarded");
        100.0 * f64::from(state.lost) / f64::from(state.sent)
    }

    async fn forward(self, front: Arc<UdpSocket>, server: SocketAddr) {
        let mut clients: HashMap<SocketAddr, UnboundedSender<(Instant, Vec<u8>)>> = HashMap::new();
        let mut packet = [0; 2048];
        loop {
            let (length, client) = front.recv_from(&mut packet).await.expect("the proxy works");
            let delay_queue = match clients.entry(client) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let back = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.expect("the proxy works"));
                    tokio::spawn(self.clone().answer(back.clone(), front.clone(), client));
                    new.insert(delay_queue(back, server))
                }
            };
            let _ = delay_queue.send((Instant::now() + self.latency, packet[..length].to_vec()));
        }
    }

    async fn answer(self, back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
        let delay_queue = delay_queue(front, client);
        let mut packet = [0; 2048];
        while let Ok(length) = back.recv(&mut packet).await {
            // RTP and RTCP (RFC 7983 §7). STUN and DTLS are not lost.
            let is_media = (128..=191).contains(&packet[0]);
            if !(is_media && self.state.lock().expect("the proxy works").loses()) {
                let _ = delay_queue.send((Instant::now() + self.latency, packet[..length].to_vec()));
            }
        }
    }
}

/// Returns a queue whose packets are sent in order, each at its time.
fn delay_queue(from: Arc<UdpSocket>, to: SocketAddr) -> UnboundedSender<(Instant, Vec<u8>)> {
    let (delay_queue, mut packets) = unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((due, packet)) = packets.recv().await {
            sleep_until(due).await;
            let _ = from.send_to(&packet, to).await;
        }
    });
    delay_queue
}
