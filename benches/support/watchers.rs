//! Subscribers of a room as plain sockets, thousands on one thread. They parse as little as possible, so that the
//! load takes little of the machine.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc as tokio_mpsc, task::LocalSet};

use crate::sockets::{connect, frame, read_until, upgrade};

/// How subscribers are connected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// A control channel, with a session of its own.
    Channel,
    /// An event stream.
    Stream,
}

impl Face {
    pub fn name(self) -> &'static str {
        match self {
            Self::Channel => "WebSockets",
            Self::Stream => "event streams",
        }
    }

    /// The name in keys of figures.
    pub fn key(self) -> &'static str {
        match self {
            Self::Channel => "ws",
            Self::Stream => "sse",
        }
    }
}

/// Subscribers, on a thread of their own. They end when this is dropped.
pub struct Watchers {
    orders: tokio_mpsc::UnboundedSender<Order>,
}

enum Order {
    Add(usize, mpsc::Sender<()>),
    Expect(usize, mpsc::Sender<Vec<Instant>>),
    Behind(u64, mpsc::Sender<usize>),
}

/// What all subscribers together wait for.
#[derive(Default)]
struct Shared {
    arrivals: Vec<Instant>,
    expected: usize,
    told: Option<mpsc::Sender<Vec<Instant>>>,
    /// The last version that each received.
    versions: Vec<u64>,
}

#[derive(Clone)]
struct Place {
    face: Face,
    port: u16,
    room: String,
    token: String,
}

/// Updates are longer; all other messages are shorter.
const MIN_UPDATE: usize = 100;

impl Watchers {
    pub fn start(face: Face, port: u16, room: &str, token: &str) -> Self {
        let (orders, mut taken) = tokio_mpsc::unbounded_channel();
        let place = Place { face, port, room: room.to_owned(), token: token.to_owned() };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let shared = Rc::<RefCell<Shared>>::default();
            LocalSet::new().block_on(&runtime, async move {
                while let Some(order) = taken.recv().await {
                    match order {
                        Order::Add(count, done) => {
                            add(&place, count, &shared).await;
                            done.send(()).unwrap();
                        }
                        Order::Expect(count, told) => {
                            let mut shared = shared.borrow_mut();
                            shared.expected = count;
                            shared.told = Some(told);
                            shared.arrivals = Vec::with_capacity(count);
                        }
                        Order::Behind(version, answer) => {
                            let behind =
                                shared.borrow().versions.iter().filter(|has| **has != version).count();
                            answer.send(behind).unwrap();
                        }
                    }
                }
            });
        });
        Self { orders }
    }

    /// Connects more subscribers. Returns when each received a snapshot.
    pub fn add(&self, count: usize) {
        let (done, is_done) = mpsc::channel();
        self.orders.send(Order::Add(count, done)).ok().unwrap();
        is_done.recv().unwrap();
    }

    /// Returns when each of `count` subscribers received the next change.
    pub fn expect(&self, count: usize) -> mpsc::Receiver<Vec<Instant>> {
        let (told, is_told) = mpsc::channel();
        self.orders.send(Order::Expect(count, told)).ok().unwrap();
        // Registered before the change is sent.
        thread::sleep(Duration::from_millis(5));
        is_told
    }

    /// How many last received another version.
    pub fn behind(&self, version: u64) -> usize {
        let (answer, answered) = mpsc::channel();
        self.orders.send(Order::Behind(version, answer)).ok().unwrap();
        answered.recv().unwrap()
    }
}

async fn add(place: &Place, count: usize, shared: &Rc<RefCell<Shared>>) {
    // A few at a time, because of the listen backlog.
    const AT_ONCE: usize = 50;
    let first = shared.borrow().versions.len();
    shared.borrow_mut().versions.resize(first + count, 0);
    let numbers: Vec<usize> = (first..first + count).collect();
    for some in numbers.chunks(AT_ONCE) {
        let opening = some.iter().map(|number| open(place, *number));
        let opened = futures::future::join_all(opening).await;
        for (number, connection) in some.iter().zip(opened) {
            tokio::task::spawn_local(watch(connection, *number, shared.clone()));
        }
    }
}

/// Reads updates until the connection ends.
async fn watch(connection: TcpStream, number: usize, shared: Rc<RefCell<Shared>>) {
    let mut buffer = [0; 2048];
    while connection.readable().await.is_ok() {
        let length = match connection.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        if length < MIN_UPDATE {
            continue;
        }
        let now = Instant::now();
        let mut shared = shared.borrow_mut();
        shared.versions[number] = version(&buffer[..length]);
        shared.arrivals.push(now);
        if shared.arrivals.len() == shared.expected {
            let arrivals = std::mem::take(&mut shared.arrivals);
            if let Some(told) = shared.told.take() {
                let _ = told.send(arrivals);
            }
        }
    }
}

/// The number after `"version":`, which is near the beginning.
fn version(update: &[u8]) -> u64 {
    const KEY: &[u8] = b"\"version\":";
    let Some(at) = update.windows(KEY.len()).position(|window| window == KEY) else { return 0 };
    let digits = update[at + KEY.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

async fn open(place: &Place, number: usize) -> TcpStream {
    match place.face {
        Face::Channel => open_channel(place, number).await,
        Face::Stream => open_stream(place).await,
    }
}

async fn open_stream(place: &Place) -> TcpStream {
    let mut connection = connect(place.port).await;
    let request = format!(
        "GET /api/livekit/participants/stream?room={} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        place.room, place.token
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut connection, "\n\n\r\n", "event: snapshot").await;
    connection
}

async fn open_channel(place: &Place, number: usize) -> TcpStream {
    let (mut connection, _) = upgrade(place.port, &format!("user-{number}")).await;
    let init = r#"{"type":"connection_init","capabilities":{"media":["ws"]}}"#;
    connection.write_all(&frame(init)).await.unwrap();
    let subscribe =
        format!(r#"{{"type":"subscribe:participants","room":"{}","token":"{}"}}"#, place.room, place.token);
    connection.write_all(&frame(&subscribe)).await.unwrap();
    read_until(&mut connection, "}", "\"snapshot\":").await;
    // Acknowledge the microphone's state, which is requested again otherwise.
    connection
        .write_all(&frame(r#"{"type":"microphone_state_ack","version":1,"isMicrophoneEnabled":true}"#))
        .await
        .unwrap();
    connection
}
