//! What control channels cost, and what they are worth when many come at once.
//!
//! The gateway runs in a process of its own, without LiveKit and without models; the clients are plain
//! sockets on one thread. On a machine of two cores the load takes a good part of both.
//!
//! `make bench-control` prints a table and writes `target/bench/control.json`. About a minute.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops where something is missing"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "support/figures.rs"]
mod figures;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/process.rs"]
mod process;
#[path = "support/sockets.rs"]
mod sockets;
#[path = "support/statistics.rs"]
mod statistics;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use futures::future::join_all;
use gateway::Gateway;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use sockets::{connect, frame, read_until, switch, upgrade};
use statistics::median;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{LocalSet, spawn_local},
};

/// Idle connections, all of which come back at once.
const IDLE: usize = 5_000;

/// Within this time they come back.
const STORM: Duration = Duration::from_secs(5);

/// Clients that talk, how often each does, and for how long.
const ACTIVE: usize = 1_000;
const PING_INTERVAL: Duration = Duration::from_millis(500);
const ROUND: Duration = Duration::from_secs(6);

/// Rounds without and with a client that does not read, in turns.
const ROUNDS: usize = 3;

/// Connections that are opened at once: those that wait to be accepted are only so many.
const AT_ONCE: usize = 50;

fn main() {
    let mut figures = Vec::new();
    let gateway = Gateway::start();
    let (kb, storm) = run(idle_and_back(&gateway));
    drop(gateway);
    println!("An idle control connection with its session: {kb:.1} KiB resident\n");
    println!(
        "{IDLE} clients come back within {} s, at moments of chance, each resuming its session",
        STORM.as_secs()
    );
    println!("  all are back after {:.2} s", storm.all_s);
    println!("  each takes p50 {:.1} ms, p99 {:.1} ms\n", at(&storm.each_ms, 0.5), at(&storm.each_ms, 0.99));
    figures.push(("kb_per_connection".to_owned(), kb));
    figures.push(("reconnect_5k_s".into(), storm.all_s));
    figures.push(("reconnect_p99_ms".into(), at(&storm.each_ms, 0.99)));

    let gateway = Gateway::start();
    let (without, with) = run(round_trips(&gateway));
    let p99 = |rounds: &[Vec<f64>]| median(&rounds.iter().map(|round| at(round, 0.99)).collect::<Vec<_>>());
    let p50 = |rounds: &[Vec<f64>]| median(&rounds.iter().map(|round| at(round, 0.5)).collect::<Vec<_>>());
    let ratio = p99(&with) / p99(&without);
    println!(
        "A message to the session and its answer, {ACTIVE} clients, each every {} ms",
        PING_INTERVAL.as_millis()
    );
    println!("                                      p50     p99   (ms, median of {ROUNDS} rounds)");
    println!("  everybody reads                 {:>7.2} {:>7.2}", p50(&without), p99(&without));
    println!("  one client more does not read   {:>7.2} {:>7.2}", p50(&with), p99(&with));
    println!("  the others' p99 is {ratio:.2} times what it was");
    figures.push(("rtt_p50_ms".into(), p50(&without)));
    figures.push(("rtt_p99_ms".into(), p99(&without)));
    figures.push(("slow_client_effect_p99_ratio".into(), ratio));
    figures::write_figures("control", &figures);
}

fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, what)
}

fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

// --- Clients ----------------------------------------------------------------------------------

/// An attached client.
struct Client {
    connection: TcpStream,
    token: String,
    session_id: String,
    resume_token: String,
    last_seq: u64,
}

impl Client {
    async fn open(port: u16, number: usize) -> Self {
        let (mut connection, token) = upgrade(port, &format!("user-{number}")).await;
        let init = r#"{"type":"connection_init","capabilities":{"media":["ws"]}}"#;
        connection.write_all(&frame(init)).await.unwrap();
        let told = read_until(&mut connection, "}", "\"microphone_state_change\"").await;
        // Nothing is wanted of a microphone that is not there: it is asked for no more.
        let ack = r#"{"type":"microphone_state_ack","version":1,"isMicrophoneEnabled":true}"#;
        connection.write_all(&frame(ack)).await.unwrap();
        let last_seq = after(&told, "\"seq\":").last().and_then(|seq| seq.parse().ok()).unwrap();
        let field = |name| after(&told, name).next().unwrap();
        Self {
            connection,
            token,
            session_id: field("\"sessionId\":\""),
            resume_token: field("\"resumeToken\":\""),
            last_seq,
        }
    }

    /// Comes back, by a new connection. Gives how long that took.
    async fn come_back(self, port: u16) -> (TcpStream, f64) {
        let began = Instant::now();
        let mut connection = connect(port).await;
        switch(&mut connection, &self.token).await;
        let init = json!({
            "type": "connection_init", "capabilities": {"media": ["ws"]},
            "resume": {"sessionId": self.session_id, "resumeToken": self.resume_token, "lastServerSeq": self.last_seq},
        });
        connection.write_all(&frame(&init.to_string())).await.unwrap();
        let told = read_until(&mut connection, "}", "\"connection_ack\"").await;
        assert!(told.contains("\"resumed\":true"), "{told}");
        (connection, began.elapsed().as_secs_f64() * 1e3)
    }
}

/// What stands behind each occurrence of this, up to a quotation mark or a comma.
fn after<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    text.split(name).skip(1).filter_map(|rest| rest.split(['"', ',', '}']).next()).map(str::to_owned)
}

async fn clients(port: u16, first: usize, count: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    let numbers: Vec<usize> = (first..first + count).collect();
    for some in numbers.chunks(AT_ONCE) {
        clients.extend(join_all(some.iter().map(|number| Client::open(port, *number))).await);
    }
    clients
}

// --- Idle, and back ---------------------------------------------------------------------------

struct Storm {
    /// From the first attempt until the last client is back.
    all_s: f64,
    /// How long each took, sorted.
    each_ms: Vec<f64>,
}

async fn idle_and_back(gateway: &Gateway) -> (f64, Storm) {
    // What every gateway needs for its first clients is not counted.
    let warm = clients(gateway.port, IDLE, AT_ONCE).await;
    let before = process::resident_kb(gateway.pid());
    let idle = clients(gateway.port, 0, IDLE).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kb = (process::resident_kb(gateway.pid()) - before) / IDLE as f64;
    drop(warm);

    // Every connection breaks.
    let mut chance = StdRng::seed_from_u64(1);
    let began = Instant::now();
    let coming: Vec<_> = idle
        .into_iter()
        .map(|mut client| {
            let pause = chance.random_range(0.0..STORM.as_secs_f64());
            let port = gateway.port;
            spawn_local(async move {
                client.connection.shutdown().await.unwrap();
                tokio::time::sleep_until((began + Duration::from_secs_f64(pause)).into()).await;
                client.come_back(port).await
            })
        })
        .collect();
    let mut each_ms: Vec<f64> = join_all(coming).await.into_iter().map(|back| back.unwrap().1).collect();
    let all_s = began.elapsed().as_secs_f64();
    each_ms.sort_by(f64::total_cmp);
    (kb, Storm { all_s, each_ms })
}

// --- Round trips ------------------------------------------------------------------------------

/// Round trips in milliseconds, sorted, by rounds: without a client that does not read, and with one.
async fn round_trips(gateway: &Gateway) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut talkers = clients(gateway.port, 0, ACTIVE).await;
    // The first round finds everything cold.
    talk(&mut talkers).await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(talk(&mut talkers).await);
        let stalled = spawn_local(stall(gateway.port));
        with.push(talk(&mut talkers).await);
        stalled.abort();
    }
    (without, with)
}

async fn talk(talkers: &mut [Client]) -> Vec<f64> {
    let until = Instant::now() + ROUND;
    let apart = PING_INTERVAL.div_f64(talkers.len() as f64);
    let talking = talkers.iter_mut().enumerate().map(|(n, client)| async move {
        let mut took_ms = Vec::new();
        tokio::time::sleep(apart * n as u32).await;
        let mut every = tokio::time::interval(PING_INTERVAL);
        while Instant::now() < until {
            every.tick().await;
            took_ms.push(ask(client).await);
        }
        took_ms
    });
    let mut took_ms = join_all(talking).await.concat();
    took_ms.sort_by(f64::total_cmp);
    took_ms
}

/// An interim of the client's own: the session takes it, numbers it, keeps it for a resume, and tells the
/// client as it tells what it heard itself.
async fn ask(client: &mut Client) -> f64 {
    client.last_seq += 1;
    let text = format!("take number {:08}", client.last_seq);
    let message = format!(r#"{{"type":"local_transcription","text":"{text}","isFinal":false}}"#);
    let message = frame(&message);
    let asked = Instant::now();
    client.connection.write_all(&message).await.unwrap();
    let mut told = Vec::with_capacity(1024);
    while !told.windows(text.len()).any(|window| window == text.as_bytes()) {
        assert!(client.connection.read_buf(&mut told).await.unwrap() > 0, "the gateway closed a connection");
    }
    asked.elapsed().as_secs_f64() * 1e3
}

/// A client that has much told to it and reads nothing; again and again, where it is cut.
async fn stall(port: u16) {
    for number in 1_000_000.. {
        let mut client = Client::open(port, number).await;
        let mut every = tokio::time::interval(Duration::from_millis(12));
        for n in 0u32.. {
            every.tick().await;
            let text = format!("{n:08}{}", "x".repeat(3_900));
            let message = format!(r#"{{"type":"local_transcription","text":"{text}","isFinal":false}}"#);
            if client.connection.write_all(&frame(&message)).await.is_err() {
                break;
            }
        }
    }
}
