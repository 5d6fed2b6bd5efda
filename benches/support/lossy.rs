//! A line that loses packets: a UDP proxy in front of a livekit-server, which names it as its address.
//!
//! ```text
//!   client ──▶ 127.0.0.2:port ──▶ 127.0.0.1:port   everything
//!   client ◀── 127.0.0.2:port ◀── 127.0.0.1:port   media with losses, the rest whole
//! ```
//! Only what the server sends is lost, so that a publisher's sound reaches the server as it was sent.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::net::UdpSocket;

/// Where clients find the server.
pub const ADDRESS: &str = "127.0.0.2";

/// What is lost of the media.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// Nothing.
    None,
    /// Each packet with this probability.
    Random(f64),
    /// This share of packets, in runs of this mean length: two states, good and bad (Gilbert).
    Bursts(f64, f64),
}

/// The loss at work, and its chance.
struct Line {
    loss: Loss,
    chance: StdRng,
    bad: bool,
    /// Media packets since the loss was set, and how many of them were lost.
    sent: u32,
    lost: u32,
}

impl Line {
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
        };
        self.sent += 1;
        self.lost += u32::from(lost);
        lost
    }
}

/// The proxy; it ends with the runtime.
#[derive(Clone)]
pub struct Proxy(Arc<Mutex<Line>>);

impl Proxy {
    /// Stands before the server at this UDP port.
    pub async fn start(port: u16, seed: u64) -> Self {
        let line =
            Line { loss: Loss::None, chance: StdRng::seed_from_u64(seed), bad: false, sent: 0, lost: 0 };
        let proxy = Self(Arc::new(Mutex::new(line)));
        let front = Arc::new(UdpSocket::bind((ADDRESS, port)).await.unwrap());
        tokio::spawn(proxy.clone().forward(front, SocketAddr::from(([127, 0, 0, 1], port))));
        proxy
    }

    /// Loses so much from now on.
    pub fn lose(&self, loss: Loss) {
        let mut line = self.0.lock().unwrap();
        (line.loss, line.sent, line.lost) = (loss, 0, 0);
    }

    /// How much it lost since then, in percent.
    pub fn lost_percent(&self) -> f64 {
        let line = self.0.lock().unwrap();
        assert!(line.sent > 0, "no media came this way");
        100.0 * f64::from(line.lost) / f64::from(line.sent)
    }

    async fn forward(self, front: Arc<UdpSocket>, server: SocketAddr) {
        let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut packet = [0; 2048];
        loop {
            let (length, client) = front.recv_from(&mut packet).await.unwrap();
            let back = match clients.entry(client) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let back = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap());
                    back.connect(server).await.unwrap();
                    tokio::spawn(self.clone().answer(back.clone(), front.clone(), client));
                    new.insert(back)
                }
            };
            // A server that is gone refuses; its clients notice by themselves.
            let _ = back.send(&packet[..length]).await;
        }
    }

    async fn answer(self, back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
        let mut packet = [0; 2048];
        while let Ok(length) = back.recv(&mut packet).await {
            // RTP and RTCP (RFC 7983 §7); ICE and DTLS are not what is measured here.
            let is_media = (128..=191).contains(&packet[0]);
            if !(is_media && self.0.lock().unwrap().loses()) {
                let _ = front.send_to(&packet[..length], client).await;
            }
        }
    }
}
