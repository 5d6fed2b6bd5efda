//! Another user's round trips while one user floods the gateway in every way at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::json;
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream, task::spawn_local};

use crate::{
    client::{Channel, ask, bearer, create_session, request, token},
    gateway_with_users, run,
    sockets::connect,
    statistics::median,
};

/// Clients whose round trips are measured, and how often each pings.
const CLIENTS: usize = 20;
const PING_INTERVAL: Duration = Duration::from_millis(40);

/// Rounds without and with the attack, in turns.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(4);

/// What the attacker does in a second. More would measure the machine that both share, and not the gateway.
const SESSIONS_PER_S: u32 = 400;
const WRONG_KEYS_PER_S: u32 = 200;
const STREAMS_PER_S: u32 = 50;
const HALF_BODIES_PER_S: u32 = 50;
const LINES_PER_S: u32 = 80;

/// Connections with half a body that the attacker holds.
const HALF_BODIES: usize = 300;

pub struct Effect {
    pub before_p99_ms: f64,
    /// While a second gateway on the same machine is flooded: what the machine's share of the effect is.
    pub elsewhere_p99_ms: f64,
    pub during_p99_ms: f64,
    /// What the attacker sent in a second.
    pub per_s: f64,
}

impl Effect {
    pub fn ratio(&self) -> f64 {
        self.during_p99_ms / self.before_p99_ms
    }
}

pub async fn effect() -> Effect {
    let gateway = gateway_with_users(&[("MAX_STREAMS_BY_USER", "16")]);
    let second = gateway_with_users(&[("MAX_STREAMS_BY_USER", "16")]);
    let port = gateway.port;
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        clients.push(Channel::attach(port, &token(&format!("user-{n}"))).await.unwrap());
    }
    // The first round finds everything cold.
    round(&mut clients).await;
    let (mut before, mut elsewhere, mut during, mut sent) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        before.push(round(&mut clients).await);
        elsewhere.push(attacked_round(&mut clients, second.port).await.0);
        let (p99_ms, requests) = attacked_round(&mut clients, port).await;
        during.push(p99_ms);
        sent += requests;
    }
    let per_s = sent as f64 / (ROUNDS as f64 * ROUND.as_secs_f64());
    Effect {
        before_p99_ms: median(&before),
        elsewhere_p99_ms: median(&elsewhere),
        during_p99_ms: median(&during),
        per_s,
    }
}

/// The p99 of the clients' round trips, in milliseconds.
async fn round(clients: &mut [Channel]) -> f64 {
    let until = Instant::now() + ROUND;
    let apart = PING_INTERVAL / CLIENTS as u32;
    let pinging = clients.iter_mut().enumerate().map(|(n, client)| async move {
        let mut took_ms = Vec::new();
        tokio::time::sleep(apart * n as u32).await;
        let mut every = tokio::time::interval(PING_INTERVAL);
        for t in 0_u64.. {
            every.tick().await;
            let asked = Instant::now();
            if asked > until {
                break;
            }
            client.send(&format!(r#"{{"type":"ping","t":{t}}}"#)).await.unwrap();
            client.read_until("\"pong\"").await.expect("the gateway answers");
            took_ms.push(asked.elapsed().as_secs_f64() * 1e3);
        }
        took_ms
    });
    let mut took_ms = join_all(pinging).await.concat();
    took_ms.sort_by(f64::total_cmp);
    took_ms[(took_ms.len() - 1) * 99 / 100]
}

/// The same while the gateway on this port is flooded, and how much the attacker sent.
async fn attacked_round(clients: &mut [Channel], port: u16) -> (f64, usize) {
    let attack = Attack::start(port);
    let p99_ms = round(clients).await;
    (p99_ms, attack.stop())
}

/// The attacker, on a thread of its own.
struct Attack {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Attack {
    fn start(port: u16) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, count) = (stop.clone(), sent.clone());
        let thread = thread::spawn(move || {
            run(async move {
                let mallory = token("mallory");
                let floods = [
                    spawn_local(requests(port, create(&mallory), SESSIONS_PER_S, count.clone())),
                    spawn_local(requests(port, wrong_key(), WRONG_KEYS_PER_S, count.clone())),
                    spawn_local(streams(port, mallory.clone(), count.clone())),
                    spawn_local(half_bodies(port, mallory.clone(), count.clone())),
                    spawn_local(lines(port, mallory, count)),
                ];
                while !stopped.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                floods.iter().for_each(tokio::task::JoinHandle::abort);
            });
        });
        Self { stop, sent, thread }
    }

    /// Gives how much it sent.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

fn create(token: &str) -> String {
    request("POST", "/api/sessions", &bearer(token), r#"{"user_id":"mallory"}"#)
}

fn wrong_key() -> String {
    request("GET", "/api/admin/sessions", "X-API-Key: guess", "")
}

/// A rate at which the attacker sends.
///
/// Tokio's timers fire on whole milliseconds. Without more, all floods would be sent at one point of each millisecond, and
/// the clients' pings at another, and a round would measure how far these two happen to be apart.
struct Rate(tokio::time::Interval);

impl Rate {
    fn new(per_s: u32) -> Self {
        Self(tokio::time::interval(Duration::from_secs(1) / per_s))
    }

    async fn tick(&mut self) {
        self.0.tick().await;
        // The thread is the attacker's own.
        thread::sleep(Duration::from_micros(rand::random_range(0..1_000)));
    }
}

/// The same request again and again, by connections that stay open for as long as the gateway lets them.
async fn requests(port: u16, request: String, per_s: u32, sent: Arc<AtomicUsize>) {
    let mut rate = Rate::new(per_s);
    let mut connection = connect(port).await;
    loop {
        rate.tick().await;
        if ask(&mut connection, &request).await.is_none() {
            connection = connect(port).await;
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Event streams of the attacker's own room, which are never read.
async fn streams(port: u16, token: String, sent: Arc<AtomicUsize>) {
    let session = create_session(port, "mallory", &bearer(&token)).await;
    let room = session["room_name"].as_str().unwrap_or("room-mallory").to_owned();
    let path = format!("/api/livekit/participants/stream?room={room}");
    let (mut rate, mut open) = (Rate::new(STREAMS_PER_S), Vec::new());
    loop {
        rate.tick().await;
        let mut connection = connect(port).await;
        let _ = connection.write_all(request("GET", &path, &bearer(&token), "").as_bytes()).await;
        hold(&mut open, connection);
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

async fn half_bodies(port: u16, token: String, sent: Arc<AtomicUsize>) {
    let (mut rate, mut open) = (Rate::new(HALF_BODIES_PER_S), Vec::new());
    let body = json!({"user_id": "mallory"}).to_string();
    let whole = request("POST", "/api/sessions", &bearer(&token), &body);
    loop {
        rate.tick().await;
        let mut connection = connect(port).await;
        let _ = connection.write_all(&whole.as_bytes()[..whole.len() - body.len() / 2]).await;
        hold(&mut open, connection);
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

fn hold(open: &mut Vec<TcpStream>, connection: TcpStream) {
    if open.len() >= HALF_BODIES {
        open.remove(0);
    }
    open.push(connection);
}

/// Typed lines, on a channel that is opened again whenever it is closed.
async fn lines(port: u16, token: String, sent: Arc<AtomicUsize>) {
    let mut rate = Rate::new(LINES_PER_S);
    let line = format!(r#"{{"type":"say","text":"{}"}}"#, "word ".repeat(700).trim());
    loop {
        rate.tick().await;
        let Some(mut channel) = Channel::attach(port, &token).await else { continue };
        let mut unread = [0; 64 * 1024];
        loop {
            rate.tick().await;
            if channel.send(&line).await.is_none() {
                break;
            }
            sent.fetch_add(1, Ordering::Relaxed);
            let read = tokio::time::timeout(Duration::from_millis(1), channel.connection.read(&mut unread));
            if matches!(read.await, Ok(Ok(0) | Err(_))) {
                break;
            }
        }
    }
}
