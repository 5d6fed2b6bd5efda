//! What it takes to tell a room's watchers of a change, and to take LiveKit's webhooks in.
//!
//! The gateway runs in a process of its own, without LiveKit and without models: webhooks are signed
//! here, as LiveKit signs them. The watchers are plain sockets on one thread. A change is measured from
//! the moment its webhook is sent to the moment the last watcher has read it; the next one waits until
//! then, and a while longer. On a machine of two cores the load takes a good part of both.
//!
//! `make bench-rooms` prints the tables and writes `target/bench/rooms.json`. About two minutes.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops where something is missing"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "support/creation.rs"]
mod creation;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;
#[path = "support/sockets.rs"]
mod sockets;
#[path = "support/statistics.rs"]
mod statistics;
#[path = "support/watchers.rs"]
mod watchers;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::mpsc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use gateway::{Gateway, SECRET};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use watchers::{Face, Watchers};

const ROOM: &str = "room-bench";

/// How many watch, how many changes they are told of, and the pause between two.
const STAGES: [(usize, usize, Duration); 2] =
    [(1_000, 100, Duration::from_millis(30)), (10_000, 50, Duration::from_millis(150))];

/// Webhooks that are sent for the rate at which they are taken, and by how many connections at once.
const WEBHOOKS: usize = 60_000;
const CONNECTIONS: usize = 32;

fn main() {
    let mut figures = Vec::new();

    let gateway = Gateway::start();
    figures.extend(actix_web::rt::System::new().block_on(creation::creation(gateway.port)));
    drop(gateway);

    let gateway = Gateway::start();
    let per_s = webhooks_per_second(&gateway);
    println!("Webhooks taken, signed and each of its own id: {per_s:.0} a second\n");
    figures.push(("webhook_per_s".to_owned(), per_s));
    drop(gateway);

    println!("One change to all watchers of a room, in milliseconds from its webhook");
    println!(
        "  watchers           to the last: p50    p99    to each: p50    p99    CPU-s per million   KiB each"
    );
    let (mut cpu_s, mut deliveries, mut drift) = (0.0, 0.0, 0);
    for face in [Face::Channel, Face::Stream] {
        let gateway = Gateway::start();
        let before = process::resident_kb(gateway.pid());
        let mut room = Room::begin(&gateway);
        let watchers = Watchers::start(face, gateway.port, ROOM, &room.token());
        let mut count = 0;
        for (wanted, changes, pause) in STAGES {
            watchers.add(wanted - count);
            count = wanted;
            let name = if count == 1_000 { "1k" } else { "10k" };
            let told = fan_out(&gateway, &mut room, &watchers, count, changes, pause);
            let each_kb = (process::resident_kb(gateway.pid()) - before) / count as f64;
            println!(
                "  {:>6} {:<16} {:>6.1} {:>6.1} {:>14.1} {:>6.1} {:>16.1} {:>12.1}",
                count,
                face.name(),
                quantile(&told.last_ms, 0.5),
                quantile(&told.last_ms, 0.99),
                quantile(&told.each_ms, 0.5),
                quantile(&told.each_ms, 0.99),
                told.cpu_s / told.each_ms.len() as f64 * 1e6,
                each_kb,
            );
            for (key, share) in [("p50", 0.5), ("p99", 0.99)] {
                let key = format!("fanout_{}_{name}_{key}_ms", face.key());
                figures.push((key, quantile(&told.last_ms, share)));
            }
            cpu_s += told.cpu_s;
            deliveries += told.each_ms.len() as f64;
            if count == 10_000 {
                figures.push((format!("{}_kb_per_subscriber", face.key()), each_kb));
                figures.push((
                    format!("cpu_s_per_million_deliveries_{}", face.key()),
                    told.cpu_s / told.each_ms.len() as f64 * 1e6,
                ));
            }
        }
        drift += watchers.behind(room.version) + usize::from(!room.is_as_told());
    }
    let cpu_s_per_million = cpu_s / deliveries * 1e6;
    println!("\nCPU-seconds of the gateway per million deliveries: {cpu_s_per_million:.1}; drift: {drift}");
    figures.push(("cpu_s_per_million_deliveries".into(), cpu_s_per_million));
    figures.push(("drift".into(), drift as f64));
    figures::write_figures("rooms", &figures);
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

// --- LiveKit's part ---------------------------------------------------------------------------

/// A room that changes, and the connection its webhooks come by.
struct Room {
    connection: BufReader<TcpStream>,
    changes: usize,
    /// The version that the gateway must have reached.
    version: u64,
}

impl Room {
    fn begin(gateway: &Gateway) -> Self {
        let connection = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        connection.set_nodelay(true).unwrap();
        let mut room = Self { connection: BufReader::new(connection), changes: 0, version: 0 };
        room.send(&request(&json!({"event": "room_started", "id": "EV_0", "room": {"name": ROOM}})));
        room
    }

    fn token(&self) -> String {
        let claims = json!({
            "iss": "devkey", "sub": "bench", "exp": june_edge::clock::unix_s() + 600,
            "video": {"room": ROOM, "roomJoin": true},
        });
        jwt(&claims)
    }

    /// Somebody joins; or leaves, who did. Gives the moment before it was sent.
    fn change(&mut self) -> Instant {
        let n = self.changes;
        self.changes += 1;
        self.version += 1;
        let event = if n.is_multiple_of(2) { "participant_joined" } else { "participant_left" };
        let request = request(&event_of(event, &format!("EV_{n:06}"), ROOM, n / 2));
        let sent = Instant::now();
        self.send(&request);
        sent
    }

    fn send(&mut self, request: &[u8]) {
        self.connection.get_mut().write_all(request).unwrap();
        read_answer(&mut self.connection);
    }

    /// Whether the gateway's answer to who is there is what it was told.
    fn is_as_told(&mut self) -> bool {
        let token = self.token();
        let request = format!(
            "GET /api/livekit/participants?room={ROOM} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        self.connection.get_mut().write_all(request.as_bytes()).unwrap();
        let present: Vec<Value> = serde_json::from_slice(&read_answer(&mut self.connection)).unwrap();
        present.len() == self.changes % 2
    }
}

fn event_of(event: &str, id: &str, room: &str, n: usize) -> Value {
    json!({
        "event": event, "id": id, "room": {"name": room, "sid": "RM_bench"},
        "createdAt": june_edge::clock::unix_s().to_string(),
        "participant": {
            "sid": format!("PA_{n:012}"), "identity": format!("user-{n:06}"), "name": format!("User {n:06}"),
            "state": "ACTIVE", "joinedAtMs": "1795248000000", "version": 3,
            "metadata": "x".repeat(80),
        },
    })
}

/// A webhook as LiveKit sends it.
fn request(event: &Value) -> Vec<u8> {
    let body = event.to_string();
    let sha256 = STANDARD.encode(Sha256::digest(&body));
    let token = jwt(&json!({"iss": "devkey", "exp": june_edge::clock::unix_s() + 300, "sha256": sha256}));
    format!(
        "POST /api/livekit/webhook HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\
         Content-Type: application/webhook+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn jwt(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// Reads one answer, which must be a good one, and gives its body.
fn read_answer(connection: &mut impl BufRead) -> Vec<u8> {
    let (mut line, mut length, mut first) = (String::new(), 0, true);
    loop {
        line.clear();
        assert!(connection.read_line(&mut line).unwrap() > 0, "the gateway closed the connection");
        assert!(!first || line.starts_with("HTTP/1.1 2"), "{line}");
        first = false;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            let mut body = vec![0; length];
            connection.read_exact(&mut body).unwrap();
            return body;
        }
    }
}

/// How many webhooks of two hundred rooms are taken in a second.
fn webhooks_per_second(gateway: &Gateway) -> f64 {
    let share = WEBHOOKS / CONNECTIONS;
    // Signing is LiveKit's work: it is done before.
    let requests: Vec<Vec<Vec<u8>>> = (0..CONNECTIONS)
        .map(|connection| {
            (0..share)
                .map(|n| {
                    let event = if n.is_multiple_of(2) { "participant_joined" } else { "participant_left" };
                    let id = format!("EV_{connection}_{n}");
                    let room = format!("room-{}", connection * 7 + n % 7);
                    request(&event_of(event, &id, &room, connection * share + n / 2))
                })
                .collect()
        })
        .collect();
    let port = gateway.port;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let sending = requests.into_iter().map(|requests| send_all(port, requests));
        futures::future::join_all(sending).await;
        (CONNECTIONS * share) as f64 / began.elapsed().as_secs_f64()
    })
}

async fn send_all(port: u16, requests: Vec<Vec<u8>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.set_nodelay(true).unwrap();
    let mut answer = [0; 1024];
    for request in requests {
        connection.write_all(&request).await.unwrap();
        // An answer without a body comes as a whole.
        let length = connection.read(&mut answer).await.unwrap();
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer[..length])
        );
    }
}

// --- Fan-out ----------------------------------------------------------------------------------

/// How long changes took, sorted.
struct Told {
    last_ms: Vec<f64>,
    each_ms: Vec<f64>,
    cpu_s: f64,
}

fn fan_out(
    gateway: &Gateway,
    room: &mut Room,
    watchers: &Watchers,
    count: usize,
    changes: usize,
    pause: Duration,
) -> Told {
    let (mut last_ms, mut each_ms, mut cpu) = (Vec::new(), Vec::new(), 0.0);
    // The first one finds everything cold.
    for warm in 0..=changes {
        std::thread::sleep(pause);
        let told = watchers.expect(count);
        let sent = room.change();
        let arrivals =
            told.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|error: mpsc::RecvTimeoutError| {
                panic!("a change did not reach all of {count} watchers: {error}")
            });
        if warm == 0 {
            cpu = process::cpu_seconds(gateway.pid());
            continue;
        }
        let took: Vec<f64> =
            arrivals.into_iter().map(|at: Instant| at.duration_since(sent).as_secs_f64() * 1e3).collect();
        last_ms.push(took.iter().copied().fold(0.0, f64::max));
        each_ms.extend(took);
    }
    let cpu_s = process::cpu_seconds(gateway.pid()) - cpu;
    last_ms.sort_by(f64::total_cmp);
    each_ms.sort_by(f64::total_cmp);
    Told { last_ms, each_ms, cpu_s }
}
