//! The sockets of one connection.
//!
//! Each connection has sockets of its own: towards LiveKit's single UDP port a shared one could not tell which
//! connection a DTLS or SRTP packet is for, since only STUN carries a name. Each is bound to one interface's
//! address, because ICE needs to know where a packet arrived. Which interfaces: those that the system would reach
//! the peer from, found out by asking its routing table.
//!
//! Where UDP does not get through, there is more to try ([`fallback`]):
//! - streams to the addresses that the peer listens on by TCP ([`stream`]),
//! - the address that a STUN server sees ([`reflexive`]),
//! - an address on a TURN server, reached by UDP, TCP or TLS ([`relay`]).

mod fallback;
mod framing;
mod reflexive;
mod relay;
mod servers;
mod stream;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::task::Poll;
use std::time::{Duration, Instant};

use socket2::SockRef;
use str0m::Candidate;
use str0m::net::{Protocol, TcpType, Transmit};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::Connection;
use crate::clock;
use crate::peer::Peer;
use crate::peer_connection::{IceCandidateError, IceGatheringState};
use crate::peer_connection_factory::{IceTransportsType, RtcConfiguration};
use crate::{RtcError, RtcErrorType};
use fallback::Fallback;
use reflexive::Question;
use relay::{News, Relay};
use servers::Kind;
use stream::PacketStream;

/// Larger than anything a peer sends over UDP: paths carry 1,500 bytes.
const DATAGRAM_BYTES: usize = 2_048;

/// Datagrams read before the rest of the connection gets its turn.
const BATCH: usize = 64;

/// Sockets, streams and relays of one connection at most, however many addresses its peer names.
const MAX_EACH: usize = 8;

/// How long a TCP stream may take to open.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The error code of a server that was not reached (W3C webrtc-pc §4.8.2).
const NOT_REACHED: i32 = 701;

/// Addresses that stand for "somewhere in the internet" (RFC 5737, RFC 3849): nothing is sent there, only the
/// routing table is asked how it would be.
const SOMEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

// --- State ------------------------------------------------------------------------------------------------

pub(super) struct Network {
    sockets: Vec<Socket>,
    streams: Vec<PacketStream>,
    relays: Vec<Relay>,
    questions: Vec<Question>,
    fallback: Fallback,
    /// What takes its time; it ends with the connection.
    opening: JoinSet<()>,
    opened: (Sender<Opened>, Receiver<Opened>),
    buffer: Box<[u8; DATAGRAM_BYTES]>,
    /// Where the peer can be reached, and no socket was looked for yet.
    to_reach: Vec<Candidate>,
    gather_again: bool,
    /// The version of the configuration that is in force.
    configured: u64,
}

struct Socket {
    state: SocketState,
    candidate: Candidate,
}

enum SocketState {
    /// Bound by the application's thread, which has no reactor of ours.
    Bound(StdUdpSocket),
    Ready(UdpSocket),
    /// The reactor refused it.
    Broken,
}

/// What took its time.
enum Opened {
    /// A stream to the peer.
    Stream(TcpStream),
    /// A TURN server was reached.
    Relay(Box<Relay>),
    /// A STUN server was found.
    Stun(SocketAddr, String),
    /// A server was not.
    Failed(IceCandidateError),
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            sockets: Vec::new(),
            streams: Vec::new(),
            relays: Vec::new(),
            questions: Vec::new(),
            fallback: Fallback::default(),
            opening: JoinSet::new(),
            opened: channel(MAX_EACH),
            buffer: Box::new([0; DATAGRAM_BYTES]),
            to_reach: Vec::new(),
            gather_again: false,
            configured: 0,
        }
    }

    // --- What the connection asks for ---------------------------------------------------------------------

    /// Opens a socket on each address that this host reaches the internet from, or on loopback if there is none,
    /// so that the first description can name them.
    pub(super) fn gather(
        &mut self,
        configuration: &RtcConfiguration,
        peer: &mut Peer,
        now: Instant,
    ) -> Result<(), RtcError> {
        if configuration.ice_transport_type != IceTransportsType::All {
            return Ok(());
        }
        let mut addresses: Vec<IpAddr> = SOMEWHERE.into_iter().filter_map(address_towards).collect();
        if addresses.is_empty() {
            addresses.push(Ipv4Addr::LOCALHOST.into());
        }
        let mut last_error = None;
        for address in addresses {
            match self.open(address) {
                Ok(candidate) => peer.add_local_candidate(candidate, false, now),
                Err(error) => last_error = Some(error),
            }
        }
        match last_error {
            Some(error) if self.sockets.is_empty() => Err(RtcError {
                error_type: RtcErrorType::Internal,
                message: format!("no socket for media: {error}"),
            }),
            _ => Ok(()),
        }
    }

    /// The peer can be reached at `candidate`.
    pub(super) fn reach(&mut self, candidate: &Candidate) {
        self.to_reach.push(candidate.clone());
    }

    /// Addresses may have changed.
    pub(super) fn gather_again(&mut self) {
        self.gather_again = true;
    }

    /// Opens and closes what was asked for, and takes what has opened.
    pub(super) fn work(&mut self, connection: &Connection, now: Instant) {
        for socket in &mut self.sockets {
            socket.make_ready();
        }
        if self.has_work(connection, now) {
            self.do_work(connection, now);
        }
    }

    /// Whether there is anything to do apart from sending and receiving. Mostly there is not, and this is asked
    /// with each packet.
    fn has_work(&self, connection: &Connection, now: Instant) -> bool {
        self.configured != connection.configured()
            || self.gather_again
            || !self.to_reach.is_empty()
            || !self.relays.is_empty()
            || !self.opening.is_empty()
            || self.deadline().is_some_and(|at| now >= at)
    }

    fn do_work(&mut self, connection: &Connection, now: Instant) {
        let configuration = connection.configuration();
        let version = connection.configured();
        let again = std::mem::take(&mut self.gather_again);
        if std::mem::replace(&mut self.configured, version) != version || again {
            let servers = configuration.ice_servers.iter().any(|server| !server.urls.is_empty());
            if servers {
                self.fallback.servers(configuration.ice_transport_type != IceTransportsType::All, now);
            }
        }
        let hosts = configuration.ice_transport_type == IceTransportsType::All;
        if again && hosts {
            self.close_lost(connection, now);
            for address in SOMEWHERE.into_iter().filter_map(address_towards) {
                self.open_and_tell(address, connection, now);
            }
        }
        for candidate in std::mem::take(&mut self.to_reach) {
            if !hosts {
                continue;
            }
            self.fallback.named(&candidate, now);
            if candidate.proto() == Protocol::Udp
                && let Some(address) = address_towards(candidate.addr())
            {
                self.open_and_tell(address, connection, now);
            }
        }
        if self.fallback.deadline().is_some_and(|at| now >= at) {
            self.fall_back(connection, &configuration, now);
        }
        while let Ok(opened) = self.opened.1.try_recv() {
            self.take(opened, connection, now);
        }
        self.ask_questions(connection, now);
        self.work_on_relays(connection, now);
        self.say_how_far(connection);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let relays = self.relays.iter().filter_map(Relay::deadline);
        let questions = self.questions.iter().filter_map(Question::deadline);
        relays.chain(questions).chain(self.fallback.deadline()).min()
    }

    /// Lets go of what others hold for us.
    pub(super) fn close(&mut self, now: Instant) {
        for relay in &mut self.relays {
            relay.close(now);
        }
    }

    // --- Packets ------------------------------------------------------------------------------------------

    /// Sends a packet. What the system has no room for is lost, as it would be on the way.
    pub(super) fn send(&mut self, transmit: &Transmit, now: Instant) {
        let from = Some(transmit.source);
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.relayed() == from) {
            return relay.send(&transmit.contents, transmit.destination, now);
        }
        match transmit.proto {
            Protocol::Udp => self.send_datagram(transmit),
            Protocol::Tcp => {
                let fits = |stream: &&mut PacketStream| {
                    stream.local() == transmit.source && stream.remote() == transmit.destination
                };
                // The error shows again when the stream is read, and is dealt with there.
                if let Some(Err(error)) =
                    self.streams.iter_mut().find(fits).map(|s| s.send(&transmit.contents))
                {
                    tracing::debug!(%error, destination = %transmit.destination, "packet not written");
                }
            }
            // Nothing that this host offers.
            Protocol::SslTcp | Protocol::Tls => {}
        }
    }

    fn send_datagram(&mut self, transmit: &Transmit) {
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.candidate.addr() == transmit.source)
        else {
            tracing::debug!(source = %transmit.source, "no socket to send from");
            return;
        };
        socket.make_ready();
        socket.send(&transmit.contents, transmit.destination);
    }

    /// Waits until a socket has something to read, or a stream room for what waits.
    pub(super) async fn readable(&self) {
        poll_fn(|cx| {
            let sockets = self.sockets.iter().any(|socket| match &socket.state {
                SocketState::Ready(socket) => socket.poll_recv_ready(cx).is_ready(),
                SocketState::Bound(_) | SocketState::Broken => false,
            });
            let streams = self.streams.iter().any(|stream| stream.poll_ready(cx).is_ready());
            let relays = self.relays.iter().any(|relay| relay.poll_ready(cx).is_ready());
            if sockets || streams || relays { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Hands what arrived to the peer.
    pub(super) fn receive(&mut self, connection: &Connection) {
        let mut peer = connection.peer.lock();
        self.streams.retain_mut(|stream| {
            let (local, remote) = (stream.local(), stream.remote());
            let work =
                stream.work(|packet| peer.handle_packet(Protocol::Tcp, remote, local, packet, clock::now()));
            if let Err(error) = &work {
                tracing::debug!(%error, %remote, "TCP stream over");
            }
            work.is_ok()
        });
        for socket in &self.sockets {
            let SocketState::Ready(ready) = &socket.state else {
                continue;
            };
            for _ in 0..BATCH {
                match ready.try_recv_from(&mut self.buffer[..]) {
                    Ok((length, source)) => {
                        let (now, bytes) = (clock::now(), &self.buffer[..length]);
                        let destination = socket.candidate.addr();
                        if !answer(&mut self.questions, source, destination, bytes, &mut peer, now) {
                            peer.handle_packet(Protocol::Udp, source, destination, bytes, now);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error of an earlier datagram: the next one may be fine.
                    Err(error) => tracing::debug!(%error, "datagram not received"),
                }
            }
        }
    }

    // --- Sockets ------------------------------------------------------------------------------------------

    fn open_and_tell(&mut self, address: IpAddr, connection: &Connection, now: Instant) {
        if self.sockets.iter().any(|socket| socket.candidate.addr().ip() == address) {
            return;
        }
        match self.open(address) {
            Ok(candidate) => {
                if let Some(socket) = self.sockets.last_mut() {
                    socket.make_ready();
                }
                connection.with(|peer, _| peer.add_local_candidate(candidate, true, now));
            }
            Err(error) => tracing::debug!(%error, %address, "no socket"),
        }
    }

    fn open(&mut self, address: IpAddr) -> io::Result<Candidate> {
        if self.sockets.len() >= MAX_EACH {
            return Err(io::Error::other("the connection has as many sockets as it may"));
        }
        let socket = StdUdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        let candidate = Candidate::host(socket.local_addr()?, Protocol::Udp).map_err(io::Error::other)?;
        self.sockets.push(Socket { state: SocketState::Bound(socket), candidate: candidate.clone() });
        Ok(candidate)
    }

    /// Closes the sockets whose address this host no longer has.
    fn close_lost(&mut self, connection: &Connection, now: Instant) {
        self.sockets.retain(|socket| {
            let there = StdUdpSocket::bind((socket.candidate.addr().ip(), 0)).is_ok();
            if !there {
                connection.with(|peer, _| peer.remove_local_candidate(&socket.candidate, now));
            }
            there
        });
    }

    // --- Fallback -----------------------------------------------------------------------------------------

    fn fall_back(&mut self, connection: &Connection, configuration: &RtcConfiguration, now: Instant) {
        let connected = connection.with(|peer, _| peer.is_reached());
        let resort = self.fallback.due(connected, now);
        for address in resort.dial {
            tracing::debug!(%address, "no way by UDP, trying TCP");
            self.open_slowly(connection, async move {
                match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => Some(Opened::Stream(stream)),
                    refused => {
                        tracing::debug!(?refused, %address, "no TCP stream");
                        None
                    }
                }
            });
        }
        if resort.ask_servers {
            connection.with(|peer, _| peer.set_gathering(IceGatheringState::Gathering));
            let relay_only = configuration.ice_transport_type == IceTransportsType::Relay;
            for server in &configuration.ice_servers {
                for address in servers::addresses(server) {
                    let (user, password) = (server.username.clone(), server.password.clone());
                    match address.kind {
                        Kind::Stun if relay_only => {}
                        Kind::Stun => self.open_slowly(connection, async move {
                            let found = tokio::net::lookup_host((&*address.host, address.port)).await;
                            match found.map(|mut found| found.next()) {
                                Ok(Some(server)) => Some(Opened::Stun(server, address.url)),
                                Ok(None) => Some(failed(&address.url, "the name has no address")),
                                Err(error) => Some(failed(&address.url, error)),
                            }
                        }),
                        Kind::Turn(_) => self.open_slowly(connection, async move {
                            let url = address.url.clone();
                            match Relay::open(address, user, password, now).await {
                                Ok(relay) => Some(Opened::Relay(Box::new(relay))),
                                Err(error) => Some(failed(&url, error)),
                            }
                        }),
                    }
                }
            }
        }
    }

    /// Runs what takes its time beside the connection's task, which takes the result.
    fn open_slowly(&mut self, connection: &Connection, open: impl Future<Output = Option<Opened>> + 'static) {
        let (done, connection) = (self.opened.0.clone(), connection.downgrade());
        self.opening.spawn_local(async move {
            let Some(opened) = open.await else {
                return;
            };
            // It has room, or is taken from; if it is gone, so is whoever wanted this.
            if let (Ok(()), Some(connection)) = (done.send(opened).await, connection.upgrade()) {
                connection.wake();
            }
        });
    }

    fn take(&mut self, opened: Opened, connection: &Connection, now: Instant) {
        match opened {
            Opened::Stream(stream) if self.streams.len() < MAX_EACH => match PacketStream::new(stream) {
                Ok(stream) => {
                    let candidate =
                        Candidate::builder().tcp().host(stream.local()).tcptype(TcpType::Active).build();
                    // The peer needs not be told: it sees where the stream comes from.
                    add_candidate(connection, candidate, false, now);
                    self.streams.push(stream);
                }
                Err(error) => tracing::debug!(%error, "TCP stream lost"),
            },
            Opened::Relay(relay) if self.relays.len() < MAX_EACH => self.relays.push(*relay),
            Opened::Stream(_) | Opened::Relay(_) => {
                tracing::debug!("the connection has as many ways as it may")
            }
            Opened::Stun(server, url) => {
                let locals = self.sockets.iter().map(|socket| socket.candidate.addr());
                let fitting = locals.filter(|local| local.is_ipv4() == server.is_ipv4());
                self.questions.extend(fitting.map(|local| Question::new(server, local, url.clone(), now)));
            }
            Opened::Failed(error) => connection.tell_candidate_error(error),
        }
    }

    fn ask_questions(&mut self, connection: &Connection, now: Instant) {
        for question in &mut self.questions {
            let Some(request) = question.ask(now) else {
                continue;
            };
            let from = |socket: &&Socket| socket.candidate.addr() == question.local;
            if let Some(socket) = self.sockets.iter().find(from) {
                socket.send(&request, question.server);
            }
        }
        self.questions.retain(|question| {
            let silent = question.deadline().is_none();
            if silent {
                connection.tell_candidate_error(failure(&question.url, "the server does not answer"));
            }
            !silent
        });
    }

    fn work_on_relays(&mut self, connection: &Connection, now: Instant) {
        self.relays.retain_mut(|relay| {
            let mut news = Vec::new();
            let work = relay.work(now, |item| news.push(item));
            for item in news {
                match item {
                    News::Allocated(relayed) => {
                        let candidate = Candidate::relayed(relayed, relay.local(), Protocol::Udp);
                        add_candidate(connection, candidate, true, now);
                    }
                    News::Refused => {
                        let error = failure(relay.url(), "the server gives no address");
                        connection.tell_candidate_error(error);
                    }
                    News::Packet { relayed, from, bytes } => {
                        connection
                            .with(|peer, now| peer.handle_packet(Protocol::Udp, from, relayed, &bytes, now));
                    }
                }
            }
            if let Err(error) = &work {
                tracing::debug!(%error, url = relay.url(), "TURN server gone");
            }
            work.is_ok()
        });
    }

    fn say_how_far(&mut self, connection: &Connection) {
        while self.opening.try_join_next().is_some() {}
        let waiting = self.relays.iter().any(|relay| relay.relayed().is_none());
        let done = self.opening.is_empty() && self.questions.is_empty() && !waiting;
        connection.with(|peer, _| {
            if done && peer.has_remote() {
                peer.set_gathering(IceGatheringState::Complete);
            }
        });
    }
}

impl Socket {
    /// Registers the socket with the reactor of the thread that this runs on.
    fn make_ready(&mut self) {
        self.state = match std::mem::replace(&mut self.state, SocketState::Broken) {
            SocketState::Bound(socket) => match UdpSocket::from_std(socket) {
                Ok(socket) => SocketState::Ready(socket),
                Err(error) => {
                    tracing::error!(%error, "socket not registered");
                    SocketState::Broken
                }
            },
            state @ (SocketState::Ready(_) | SocketState::Broken) => state,
        };
    }

    fn send(&self, bytes: &[u8], destination: SocketAddr) {
        if let SocketState::Ready(socket) = &self.state
            && let Err(error) = send_datagram(socket, bytes, destination)
        {
            tracing::debug!(%error, %destination, "datagram not sent");
        }
    }
}

/// Whether `bytes` answer one of the questions. What the server saw becomes a candidate.
fn answer(
    questions: &mut Vec<Question>,
    source: SocketAddr,
    destination: SocketAddr,
    bytes: &[u8],
    peer: &mut Peer,
    now: Instant,
) -> bool {
    let asked = |question: &Question| question.server == source && question.local == destination;
    let Some(place) = questions.iter().position(asked) else {
        return false;
    };
    let Some(seen) = questions.get(place).and_then(|question| question.answer(bytes)) else {
        return false;
    };
    questions.remove(place);
    // Without a NAT between, it is the host's own address.
    if seen != destination {
        match Candidate::server_reflexive(seen, destination, Protocol::Udp) {
            Ok(candidate) => peer.add_local_candidate(candidate, true, now),
            Err(error) => tracing::debug!(%error, %seen, "no candidate"),
        }
    }
    true
}

fn add_candidate<E: std::fmt::Display>(
    connection: &Connection,
    candidate: Result<Candidate, E>,
    trickle: bool,
    now: Instant,
) {
    match candidate {
        Ok(candidate) => connection.with(|peer, _| peer.add_local_candidate(candidate, trickle, now)),
        Err(error) => tracing::debug!(%error, "no candidate"),
    }
}

/// Sends at once. tokio's own `try_send_to` would say that a new socket is not ready before its reactor has looked at
/// it, and lose the first packets of each connection.
fn send_datagram(socket: &UdpSocket, bytes: &[u8], destination: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).send_to(bytes, &destination.into()).map(drop)
}

fn failed(url: &str, error: impl std::fmt::Display) -> Opened {
    Opened::Failed(failure(url, error))
}

fn failure(url: &str, error: impl std::fmt::Display) -> IceCandidateError {
    IceCandidateError {
        address: String::new(),
        port: 0,
        url: url.to_owned(),
        error_code: NOT_REACHED,
        error_text: error.to_string(),
    }
}

/// The local address that the system would reach `destination` from. Connecting a UDP socket sends nothing.
fn address_towards(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = StdUdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}
