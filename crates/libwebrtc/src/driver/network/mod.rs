//! The sockets of one connection.
//!
//! Each connection has its own sockets. With a shared socket and LiveKit's single UDP port, DTLS and SRTP packets could
//! not be assigned to a connection, since only STUN messages carry an identifier. Each socket is bound to the address
//! of one interface, because ICE needs the local address of a received packet. The interfaces are those from which the
//! system's routing table would send to the peer.
//!
//! If UDP does not connect, there are fallbacks ([`fallback`]):
//! - TCP connections to passive candidates of the peer ([`stream`]),
//! - server-reflexive addresses from STUN servers ([`reflexive`]),
//! - relayed addresses on TURN servers, by UDP, TCP or TLS ([`relay`]).

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
use reflexive::BindingRequest;
use relay::{Relay, RelayEvent};
use servers::Kind;
use stream::PacketStream;

/// Size of the receive buffer: larger than any UDP packet of a peer, since paths carry 1,500 bytes.
const DATAGRAM_BYTES: usize = 2_048;

/// Maximum datagrams read from a socket before other work of the connection runs.
const MAX_RECEIVE_BATCH: usize = 64;

/// Maximum number of sockets, of streams and of relays of one connection, whatever candidates the peer signals.
const MAX_TRANSPORTS: usize = 8;

/// Timeout of a TCP connection to the peer.
const TCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Error code of a STUN or TURN server that cannot be reached (W3C webrtc-pc §4.8.2).
const ERROR_SERVER_UNREACHABLE: i32 = 701;

/// Documentation addresses (RFC 5737, RFC 3849) to look up the default route. Nothing is sent to them.
const ROUTE_PROBES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

// --- State ------------------------------------------------------------------------------------------------

pub(super) struct Network {
    sockets: Vec<Socket>,
    streams: Vec<PacketStream>,
    relays: Vec<Relay>,
    binding_requests: Vec<BindingRequest>,
    fallback: Fallback,
    /// Tasks that connect or resolve; aborted when the connection ends.
    open_tasks: JoinSet<()>,
    open_results: (Sender<OpenResult>, Receiver<OpenResult>),
    buffer: Box<[u8; DATAGRAM_BYTES]>,
    /// Candidates of the peer that were not processed yet.
    pending_remote: Vec<Candidate>,
    regather: bool,
    /// Version of the configuration that was applied.
    configuration_version: u64,
}

struct Socket {
    state: SocketState,
    candidate: Candidate,
}

enum SocketState {
    /// Bound on the application's thread and not registered with a reactor yet.
    Bound(StdUdpSocket),
    Ready(UdpSocket),
    /// Registration with the reactor failed.
    Broken,
}

/// Result of a task in [`Network::open_tasks`].
enum OpenResult {
    /// A TCP connection to the peer.
    Stream(TcpStream),
    /// A connection to a TURN server.
    Relay(Box<Relay>),
    /// Resolved address and URI of a STUN server.
    Stun(SocketAddr, String),
    /// A server could not be resolved or connected to.
    Failed(IceCandidateError),
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            sockets: Vec::new(),
            streams: Vec::new(),
            relays: Vec::new(),
            binding_requests: Vec::new(),
            fallback: Fallback::default(),
            open_tasks: JoinSet::new(),
            open_results: channel(MAX_TRANSPORTS),
            buffer: Box::new([0; DATAGRAM_BYTES]),
            pending_remote: Vec::new(),
            regather: false,
            configuration_version: 0,
        }
    }

    // --- Gathering ----------------------------------------------------------------------------------------

    /// Opens a socket on each address with a default route, or on loopback if there is none, so that the first
    /// description contains host candidates.
    pub(super) fn gather(
        &mut self,
        configuration: &RtcConfiguration,
        peer: &mut Peer,
        now: Instant,
    ) -> Result<(), RtcError> {
        if configuration.ice_transport_type != IceTransportsType::All {
            return Ok(());
        }
        let mut addresses: Vec<IpAddr> = ROUTE_PROBES.into_iter().filter_map(local_address_for).collect();
        if addresses.is_empty() {
            addresses.push(Ipv4Addr::LOCALHOST.into());
        }
        let mut last_error = None;
        for address in addresses {
            match self.open_socket(address) {
                Ok(candidate) => peer.add_local_candidate(candidate, false, now),
                Err(error) => last_error = Some(error),
            }
        }
        match last_error {
            Some(error) if self.sockets.is_empty() => Err(RtcError {
                error_type: RtcErrorType::Internal,
                message: format!("failed to open a UDP socket: {error}"),
            }),
            _ => Ok(()),
        }
    }

    /// Adds a candidate of the peer.
    pub(super) fn add_remote_candidate(&mut self, candidate: &Candidate) {
        self.pending_remote.push(candidate.clone());
    }

    /// Requests a new gathering, for example after an ICE restart.
    pub(super) fn regather(&mut self) {
        self.regather = true;
    }

    /// Opens and closes sockets as requested, and processes the results of finished tasks.
    pub(super) fn drive(&mut self, connection: &Connection, now: Instant) {
        for socket in &mut self.sockets {
            socket.make_ready();
        }
        if self.has_pending_work(connection, now) {
            self.run_pending_work(connection, now);
        }
    }

    /// Whether there is work other than sending and receiving. Called per packet, so it has to be cheap.
    fn has_pending_work(&self, connection: &Connection, now: Instant) -> bool {
        self.configuration_version != connection.configuration_version()
            || self.regather
            || !self.pending_remote.is_empty()
            || !self.relays.is_empty()
            || !self.open_tasks.is_empty()
            || self.deadline().is_some_and(|at| now >= at)
    }

    fn run_pending_work(&mut self, connection: &Connection, now: Instant) {
        let configuration = connection.configuration();
        let version = connection.configuration_version();
        let regather = std::mem::take(&mut self.regather);
        if std::mem::replace(&mut self.configuration_version, version) != version || regather {
            let servers = configuration.ice_servers.iter().any(|server| !server.urls.is_empty());
            if servers {
                self.fallback
                    .schedule_servers(configuration.ice_transport_type != IceTransportsType::All, now);
            }
        }
        let use_hosts = configuration.ice_transport_type == IceTransportsType::All;
        if regather && use_hosts {
            self.close_unavailable_sockets(connection, now);
            for address in ROUTE_PROBES.into_iter().filter_map(local_address_for) {
                self.open_and_trickle(address, connection, now);
            }
        }
        for candidate in std::mem::take(&mut self.pending_remote) {
            if !use_hosts {
                continue;
            }
            self.fallback.add_remote_candidate(&candidate, now);
            if candidate.proto() == Protocol::Udp
                && let Some(address) = local_address_for(candidate.addr())
            {
                self.open_and_trickle(address, connection, now);
            }
        }
        if self.fallback.deadline().is_some_and(|at| now >= at) {
            self.fall_back(connection, &configuration, now);
        }
        while let Ok(result) = self.open_results.1.try_recv() {
            self.handle_open_result(result, connection, now);
        }
        self.send_binding_requests(connection, now);
        self.drive_relays(connection, now);
        self.update_gathering_state(connection);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let relays = self.relays.iter().filter_map(Relay::deadline);
        let binding_requests = self.binding_requests.iter().filter_map(BindingRequest::deadline);
        relays.chain(binding_requests).chain(self.fallback.deadline()).min()
    }

    /// Deletes the allocations on TURN servers.
    pub(super) fn close(&mut self, now: Instant) {
        for relay in &mut self.relays {
            relay.close(now);
        }
    }

    // --- Packets ------------------------------------------------------------------------------------------

    /// Sends a packet. It is dropped if the socket buffer is full.
    pub(super) fn send(&mut self, transmit: &Transmit, now: Instant) {
        let from = Some(transmit.source);
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.relayed() == from) {
            return relay.send(&transmit.contents, transmit.destination, now);
        }
        match transmit.proto {
            Protocol::Udp => self.send_datagram(transmit),
            Protocol::Tcp => {
                let matches_packet = |stream: &&mut PacketStream| {
                    stream.local() == transmit.source && stream.remote() == transmit.destination
                };
                // A broken stream is handled at the next read.
                if let Some(Err(error)) =
                    self.streams.iter_mut().find(matches_packet).map(|s| s.send(&transmit.contents))
                {
                    tracing::debug!(%error, destination = %transmit.destination, "failed to write a packet");
                }
            }
            // No local candidates of these protocols exist.
            Protocol::SslTcp | Protocol::Tls => {}
        }
    }

    fn send_datagram(&mut self, transmit: &Transmit) {
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.candidate.addr() == transmit.source)
        else {
            tracing::debug!(source = %transmit.source, "no socket with the source address of a packet");
            return;
        };
        socket.make_ready();
        socket.send(&transmit.contents, transmit.destination);
    }

    /// Waits until a socket is readable, or a stream with buffered data is writable.
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

    /// Passes received packets to the peer.
    pub(super) fn receive(&mut self, connection: &Connection) {
        let mut peer = connection.peer.lock();
        self.streams.retain_mut(|stream| {
            let (local, remote) = (stream.local(), stream.remote());
            let result =
                stream.drive(|packet| peer.handle_packet(Protocol::Tcp, remote, local, packet, clock::now()));
            if let Err(error) = &result {
                tracing::debug!(%error, %remote, "TCP stream closed");
            }
            result.is_ok()
        });
        for socket in &self.sockets {
            let SocketState::Ready(ready) = &socket.state else {
                continue;
            };
            for _ in 0..MAX_RECEIVE_BATCH {
                match ready.try_recv_from(&mut self.buffer[..]) {
                    Ok((length, source)) => {
                        let (now, bytes) = (clock::now(), &self.buffer[..length]);
                        let destination = socket.candidate.addr();
                        if !handle_binding_response(
                            &mut self.binding_requests,
                            source,
                            destination,
                            bytes,
                            &mut peer,
                            now,
                        ) {
                            peer.handle_packet(Protocol::Udp, source, destination, bytes, now);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error caused by an earlier datagram; later ones are not affected.
                    Err(error) => tracing::debug!(%error, "failed to receive a datagram"),
                }
            }
        }
    }

    // --- Sockets ------------------------------------------------------------------------------------------

    fn open_and_trickle(&mut self, address: IpAddr, connection: &Connection, now: Instant) {
        if self.sockets.iter().any(|socket| socket.candidate.addr().ip() == address) {
            return;
        }
        match self.open_socket(address) {
            Ok(candidate) => {
                if let Some(socket) = self.sockets.last_mut() {
                    socket.make_ready();
                }
                connection.with(|peer, _| peer.add_local_candidate(candidate, true, now));
            }
            Err(error) => tracing::debug!(%error, %address, "failed to open a UDP socket"),
        }
    }

    fn open_socket(&mut self, address: IpAddr) -> io::Result<Candidate> {
        if self.sockets.len() >= MAX_TRANSPORTS {
            return Err(io::Error::other("the connection has the maximum number of sockets"));
        }
        let socket = StdUdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        let candidate = Candidate::host(socket.local_addr()?, Protocol::Udp).map_err(io::Error::other)?;
        self.sockets.push(Socket { state: SocketState::Bound(socket), candidate: candidate.clone() });
        Ok(candidate)
    }

    /// Closes the sockets whose address the host no longer has.
    fn close_unavailable_sockets(&mut self, connection: &Connection, now: Instant) {
        self.sockets.retain(|socket| {
            let available = StdUdpSocket::bind((socket.candidate.addr().ip(), 0)).is_ok();
            if !available {
                connection.with(|peer, _| peer.remove_local_candidate(&socket.candidate, now));
            }
            available
        });
    }

    // --- Fallback -----------------------------------------------------------------------------------------

    fn fall_back(&mut self, connection: &Connection, configuration: &RtcConfiguration, now: Instant) {
        let connected = connection.with(|peer, _| peer.ice_connected());
        let actions = self.fallback.take_due(connected, now);
        for address in actions.connect_tcp {
            tracing::debug!(%address, "not connected by UDP, trying TCP");
            self.spawn_open(connection, async move {
                match tokio::time::timeout(TCP_CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => Some(OpenResult::Stream(stream)),
                    refused => {
                        tracing::debug!(?refused, %address, "failed to connect by TCP");
                        None
                    }
                }
            });
        }
        if actions.query_servers {
            connection.with(|peer, _| peer.set_gathering(IceGatheringState::Gathering));
            let relay_only = configuration.ice_transport_type == IceTransportsType::Relay;
            for server in &configuration.ice_servers {
                for address in servers::addresses(server) {
                    let (user, password) = (server.username.clone(), server.password.clone());
                    match address.kind {
                        Kind::Stun if relay_only => {}
                        Kind::Stun => self.spawn_open(connection, async move {
                            let found = tokio::net::lookup_host((&*address.host, address.port)).await;
                            match found.map(|mut found| found.next()) {
                                Ok(Some(server)) => Some(OpenResult::Stun(server, address.url)),
                                Ok(None) => Some(open_failed(&address.url, "the host name has no address")),
                                Err(error) => Some(open_failed(&address.url, error)),
                            }
                        }),
                        Kind::Turn(_) => self.spawn_open(connection, async move {
                            let url = address.url.clone();
                            match Relay::open(address, user, password, now).await {
                                Ok(relay) => Some(OpenResult::Relay(Box::new(relay))),
                                Err(error) => Some(open_failed(&url, error)),
                            }
                        }),
                    }
                }
            }
        }
    }

    /// Runs `open` as a separate task and passes its result to the connection's task.
    fn spawn_open(
        &mut self,
        connection: &Connection,
        open: impl Future<Output = Option<OpenResult>> + 'static,
    ) {
        let (done, connection) = (self.open_results.0.clone(), connection.downgrade());
        self.open_tasks.spawn_local(async move {
            let Some(result) = open.await else {
                return;
            };
            // Waits for room; fails only if the connection has ended.
            if let (Ok(()), Some(connection)) = (done.send(result).await, connection.upgrade()) {
                connection.wake();
            }
        });
    }

    fn handle_open_result(&mut self, result: OpenResult, connection: &Connection, now: Instant) {
        match result {
            OpenResult::Stream(stream) if self.streams.len() < MAX_TRANSPORTS => {
                match PacketStream::new(stream) {
                    Ok(stream) => {
                        let candidate =
                            Candidate::builder().tcp().host(stream.local()).tcptype(TcpType::Active).build();
                        // Active candidates need not be signalled: the peer sees the source address of the connection.
                        add_candidate(connection, candidate, false, now);
                        self.streams.push(stream);
                    }
                    Err(error) => tracing::debug!(%error, "TCP stream closed before use"),
                }
            }
            OpenResult::Relay(relay) if self.relays.len() < MAX_TRANSPORTS => self.relays.push(*relay),
            OpenResult::Stream(_) | OpenResult::Relay(_) => {
                tracing::debug!("the connection has the maximum number of streams or relays")
            }
            OpenResult::Stun(server, url) => {
                let locals = self.sockets.iter().map(|socket| socket.candidate.addr());
                let fitting = locals.filter(|local| local.is_ipv4() == server.is_ipv4());
                self.binding_requests
                    .extend(fitting.map(|local| BindingRequest::new(server, local, url.clone(), now)));
            }
            OpenResult::Failed(error) => connection.notify_candidate_error(error),
        }
    }

    fn send_binding_requests(&mut self, connection: &Connection, now: Instant) {
        for request in &mut self.binding_requests {
            let Some(message) = request.poll_request(now) else {
                continue;
            };
            let from = |socket: &&Socket| socket.candidate.addr() == request.local;
            if let Some(socket) = self.sockets.iter().find(from) {
                socket.send(&message, request.server);
            }
        }
        self.binding_requests.retain(|request| {
            let timed_out = request.deadline().is_none();
            if timed_out {
                connection
                    .notify_candidate_error(candidate_error(&request.url, "the server does not respond"));
            }
            !timed_out
        });
    }

    fn drive_relays(&mut self, connection: &Connection, now: Instant) {
        self.relays.retain_mut(|relay| {
            let mut events = Vec::new();
            let result = relay.drive(now, |event| events.push(event));
            for event in events {
                match event {
                    RelayEvent::Allocated(relayed) => {
                        let candidate = Candidate::relayed(relayed, relay.local(), Protocol::Udp);
                        add_candidate(connection, candidate, true, now);
                    }
                    RelayEvent::Refused => {
                        let error = candidate_error(relay.url(), "the server refused the allocation");
                        connection.notify_candidate_error(error);
                    }
                    RelayEvent::Packet { relayed, from, bytes } => {
                        connection
                            .with(|peer, now| peer.handle_packet(Protocol::Udp, from, relayed, &bytes, now));
                    }
                }
            }
            if let Err(error) = &result {
                tracing::debug!(%error, url = relay.url(), "TURN connection closed");
            }
            result.is_ok()
        });
    }

    /// Sets the gathering state to complete when no task, request or allocation is pending.
    fn update_gathering_state(&mut self, connection: &Connection) {
        while self.open_tasks.try_join_next().is_some() {}
        let waiting = self.relays.iter().any(|relay| relay.relayed().is_none());
        let done = self.open_tasks.is_empty() && self.binding_requests.is_empty() && !waiting;
        connection.with(|peer, _| {
            if done && peer.has_remote_description() {
                peer.set_gathering(IceGatheringState::Complete);
            }
        });
    }
}

impl Socket {
    /// Registers the socket with the reactor of the current thread.
    fn make_ready(&mut self) {
        self.state = match std::mem::replace(&mut self.state, SocketState::Broken) {
            SocketState::Bound(socket) => match UdpSocket::from_std(socket) {
                Ok(socket) => SocketState::Ready(socket),
                Err(error) => {
                    tracing::error!(%error, "failed to register a socket with the reactor");
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
            tracing::debug!(%error, %destination, "failed to send a datagram");
        }
    }
}

/// Returns whether `bytes` is the response to a pending binding request. The mapped address becomes a candidate.
fn handle_binding_response(
    binding_requests: &mut Vec<BindingRequest>,
    source: SocketAddr,
    destination: SocketAddr,
    bytes: &[u8],
    peer: &mut Peer,
    now: Instant,
) -> bool {
    let matches = |request: &BindingRequest| request.server == source && request.local == destination;
    let Some(index) = binding_requests.iter().position(matches) else {
        return false;
    };
    let Some(mapped) = binding_requests.get(index).and_then(|request| request.mapped_address(bytes)) else {
        return false;
    };
    binding_requests.remove(index);
    // Without a NAT the mapped address is that of the socket, which is a host candidate already.
    if mapped != destination {
        match Candidate::server_reflexive(mapped, destination, Protocol::Udp) {
            Ok(candidate) => peer.add_local_candidate(candidate, true, now),
            Err(error) => tracing::debug!(%error, %mapped, "invalid local candidate"),
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
        Err(error) => tracing::debug!(%error, "invalid local candidate"),
    }
}

/// Sends a datagram without waiting for readiness. tokio's `try_send_to` returns `WouldBlock` for a new socket until
/// the reactor has polled it, which would drop the first packets of each connection.
fn send_datagram(socket: &UdpSocket, bytes: &[u8], destination: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).send_to(bytes, &destination.into()).map(drop)
}

fn open_failed(url: &str, error: impl std::fmt::Display) -> OpenResult {
    OpenResult::Failed(candidate_error(url, error))
}

fn candidate_error(url: &str, error: impl std::fmt::Display) -> IceCandidateError {
    IceCandidateError {
        address: String::new(),
        port: 0,
        url: url.to_owned(),
        error_code: ERROR_SERVER_UNREACHABLE,
        error_text: error.to_string(),
    }
}

/// Local address from which the system would send to `destination`. Connecting a UDP socket sends nothing.
fn local_address_for(destination: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = StdUdpSocket::bind((any, 0)).ok()?;
    socket.connect(destination).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}
