//! The sockets of one connection.
//!
//! Each connection has sockets of its own: towards LiveKit's single UDP port a shared one could not tell which
//! connection a DTLS or SRTP packet is for, since only STUN carries a name. Each is bound to one interface's
//! address, because ICE needs to know where a packet arrived. Which interfaces: those that the system would reach
//! the peer from, found out by asking its routing table.
//!
//! Where UDP does not get through, TCP streams are opened to the addresses that the peer listens on ([`fallback`]).

mod fallback;
mod framing;
mod stream;

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::task::Poll;
use std::time::{Duration, Instant};

use str0m::Candidate;
use str0m::net::{Protocol, TcpType, Transmit};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use super::Connection;
use crate::peer::Peer;
use crate::peer_connection::IceGatheringState;
use crate::peer_connection_factory::{IceTransportsType, RtcConfiguration};
use crate::{RtcError, RtcErrorType};
use fallback::Fallback;
use stream::PacketStream;

/// Larger than anything a peer sends over UDP: paths carry 1,500 bytes.
const DATAGRAM_BYTES: usize = 2_048;

/// Datagrams read before the rest of the connection gets its turn.
const BATCH: usize = 64;

/// Sockets of one connection at most, however many addresses its peer names.
const MAX_SOCKETS: usize = 8;

/// How long a TCP stream may take to open.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses that stand for "somewhere in the internet" (RFC 5737, RFC 3849): nothing is sent there, only the
/// routing table is asked how it would be.
const SOMEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

pub(super) struct Network {
    sockets: Vec<Socket>,
    streams: Vec<PacketStream>,
    fallback: Fallback,
    /// Streams that are being opened; they end with the connection.
    dialling: JoinSet<()>,
    dialled: (Sender<TcpStream>, Receiver<TcpStream>),
    buffer: Box<[u8; DATAGRAM_BYTES]>,
    /// Where the peer can be reached, and no socket was looked for yet.
    to_reach: Vec<Candidate>,
    gather_again: bool,
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

impl Network {
    pub(super) fn new() -> Self {
        Self {
            sockets: Vec::new(),
            streams: Vec::new(),
            fallback: Fallback::default(),
            dialling: JoinSet::new(),
            dialled: channel(MAX_SOCKETS),
            buffer: Box::new([0; DATAGRAM_BYTES]),
            to_reach: Vec::new(),
            gather_again: false,
        }
    }

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

    /// Opens and closes sockets as was asked for.
    pub(super) fn work(&mut self, connection: &Connection, now: Instant) {
        for socket in &mut self.sockets {
            socket.make_ready();
        }
        if std::mem::take(&mut self.gather_again) {
            self.close_lost(connection, now);
            for address in SOMEWHERE.into_iter().filter_map(address_towards) {
                self.open_and_tell(address, connection, now);
            }
        }
        self.work_on_streams(connection, now);
        if self.to_reach.is_empty() {
            return;
        }
        let host = connection.configuration().ice_transport_type == IceTransportsType::All;
        for candidate in std::mem::take(&mut self.to_reach) {
            if !host {
                continue;
            }
            self.fallback.named(&candidate, now);
            if candidate.proto() == Protocol::Udp
                && let Some(address) = address_towards(candidate.addr())
            {
                self.open_and_tell(address, connection, now);
            }
        }
        connection.with(|peer, _| peer.set_gathering(IceGatheringState::Complete));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.fallback.deadline()
    }

    /// Sends a packet. What the system has no room for is lost, as it would be on the way.
    pub(super) fn send(&mut self, transmit: &Transmit) {
        match transmit.proto {
            Protocol::Udp => self.send_datagram(transmit),
            Protocol::Tcp => {
                let fits = |stream: &&mut PacketStream| {
                    stream.local() == transmit.source && stream.remote() == transmit.destination
                };
                // The error shows again when the stream is read, and is dealt with there.
                if let Some(Err(error)) = self.streams.iter_mut().find(fits).map(|s| s.send(&transmit.contents)) {
                    tracing::debug!(%error, destination = %transmit.destination, "packet not written");
                }
            }
            // Nothing that this host offers.
            Protocol::SslTcp | Protocol::Tls => {}
        }
    }

    fn send_datagram(&mut self, transmit: &Transmit) {
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.candidate.addr() == transmit.source) else {
            tracing::debug!(source = %transmit.source, "no socket to send from");
            return;
        };
        socket.make_ready();
        if let SocketState::Ready(socket) = &socket.state
            && let Err(error) = socket.try_send_to(&transmit.contents, transmit.destination)
        {
            tracing::debug!(%error, destination = %transmit.destination, "datagram not sent");
        }
    }

    /// Dials where UDP does not get through, and takes streams that have opened.
    fn work_on_streams(&mut self, connection: &Connection, now: Instant) {
        if self.fallback.deadline().is_some_and(|at| now >= at) {
            let connected = connection.with(|peer, _| peer.is_reached());
            for address in self.fallback.due(connected, now) {
                tracing::debug!(%address, "no way by UDP, trying TCP");
                let (done, connection) = (self.dialled.0.clone(), connection.downgrade());
                self.dialling.spawn_local(async move {
                    match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
                        Ok(Ok(stream)) => drop(done.send(stream).await),
                        Ok(Err(error)) => tracing::debug!(%error, %address, "TCP refused"),
                        Err(_) => tracing::debug!(%address, "TCP not answered"),
                    }
                    if let Some(connection) = connection.upgrade() {
                        connection.wake();
                    }
                });
            }
        }
        while let Ok(stream) = self.dialled.1.try_recv() {
            let stream = match PacketStream::new(stream) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "TCP stream lost");
                    continue;
                }
            };
            let candidate = Candidate::builder().tcp().host(stream.local()).tcptype(TcpType::Active).build();
            match candidate {
                // The peer needs not be told: it sees where the stream comes from.
                Ok(candidate) => connection.with(|peer, _| peer.add_local_candidate(candidate, false, now)),
                Err(error) => tracing::debug!(%error, "no candidate of a TCP stream"),
            }
            self.streams.push(stream);
        }
    }

    /// Waits until a socket has something to read, or a stream room for what waits.
    pub(super) async fn readable(&self) {
        poll_fn(|cx| {
            for stream in &self.streams {
                if stream.poll_ready(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            for socket in &self.sockets {
                if let SocketState::Ready(socket) = &socket.state
                    && socket.poll_recv_ready(cx).is_ready()
                {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Hands what arrived to the peer.
    pub(super) fn receive(&mut self, connection: &Connection) {
        let mut peer = connection.peer.lock();
        self.streams.retain_mut(|stream| {
            let (local, remote) = (stream.local(), stream.remote());
            let work = stream.work(|packet| {
                peer.handle_packet(Protocol::Tcp, remote, local, packet, crate::clock::now());
            });
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
                        let now = crate::clock::now();
                        let destination = socket.candidate.addr();
                        peer.handle_packet(Protocol::Udp, source, destination, &self.buffer[..length], now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error of an earlier datagram: the next one may be fine.
                    Err(error) => tracing::debug!(%error, "datagram not received"),
                }
            }
        }
    }

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
        if self.sockets.len() >= MAX_SOCKETS {
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
        let (kept, lost) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|socket| StdUdpSocket::bind((socket.candidate.addr().ip(), 0)).is_ok());
        self.sockets = kept;
        for socket in &lost as &Vec<Socket> {
            connection.with(|peer, _| peer.remove_local_candidate(&socket.candidate, now));
        }
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
}

/// The local address that the system would reach `destination` from. Connecting a UDP socket sends nothing.
fn address_towards(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = StdUdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}
