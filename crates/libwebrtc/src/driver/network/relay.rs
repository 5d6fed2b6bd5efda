//! Relayed addresses: allocations on TURN servers (RFC 8656), reached by UDP, TCP or TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, UdpSocket};
use turn_client_proto::api::{TurnClientApi as _, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::DelayedTransmitBuild as _;
use turn_client_proto::stun::agent::Transmit as TurnTransmit;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::{Instant as TurnInstant, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;
use turn_client_rustls::TurnClientRustls;

use super::servers::{Kind, ServerAddress, Transport};

/// Maximum bytes in the write buffer of a server connected by TCP. Packets beyond it are dropped.
const MAX_WRITE_BUFFER_BYTES: usize = 128 * 1024;

/// Size of the read buffer, larger than any datagram.
const READ_BYTES: usize = 16 * 1024;

/// Timeout of name resolution and connection to a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

turn_client_proto::impl_client!(Client, (Udp, TurnClientUdp), (Tcp, TurnClientTcp), (Tls, TurnClientRustls));

/// An allocation on a TURN server.
pub(super) struct Relay {
    client: Client,
    io: Io,
    url: String,
    local: SocketAddr,
    /// Zero of the TURN client's clock.
    epoch: Instant,
    relayed: Option<SocketAddr>,
    /// Addresses of peers for which a channel was requested.
    permitted: Vec<IpAddr>,
    wait_until: Option<Instant>,
}

enum Io {
    Datagrams(UdpSocket),
    Stream { stream: TcpStream, write_buffer: Vec<u8> },
}

/// An event of a relay.
#[derive(Debug)]
pub(super) enum RelayEvent {
    /// The server allocated this relayed address.
    Allocated(SocketAddr),
    /// The server refused the allocation.
    Refused,
    /// A packet that a peer sent to the relayed address.
    Packet { relayed: SocketAddr, from: SocketAddr, bytes: Vec<u8> },
}

impl Relay {
    /// Connects to a TURN server and requests an allocation.
    ///
    /// # Errors
    /// If the name does not resolve, the server cannot be connected to, or [`CONNECT_TIMEOUT`] has passed.
    pub(super) async fn open(
        server: ServerAddress,
        user: String,
        password: String,
        epoch: Instant,
    ) -> io::Result<Self> {
        tokio::time::timeout(CONNECT_TIMEOUT, Self::connect(server, &user, &password, epoch))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn connect(server: ServerAddress, user: &str, password: &str, epoch: Instant) -> io::Result<Self> {
        let Kind::Turn(transport) = server.kind else {
            return Err(io::Error::other("not a TURN server"));
        };
        let found = tokio::net::lookup_host((&*server.host, server.port)).await?.next();
        let remote = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let config = TurnConfig::new(TurnCredentials::new(user, password));
        let (client, io, local) = match transport {
            Transport::Udp => {
                let address = super::local_address_for(remote).ok_or_else(|| io::Error::other("no route"))?;
                let socket = UdpSocket::bind((address, 0)).await?;
                let local = socket.local_addr()?;
                let client = Client::Udp(TurnClientUdp::allocate(local, remote, config));
                (client, Io::Datagrams(socket), local)
            }
            Transport::Tcp | Transport::Tls => {
                let stream = TcpStream::connect(remote).await?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                let client = if transport == Transport::Tcp {
                    Client::Tcp(TurnClientTcp::allocate(local, remote, config))
                } else {
                    let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
                    let tls = TLS.clone().ok_or_else(|| io::Error::other("no root certificates"))?;
                    Client::Tls(TurnClientRustls::allocate(local, remote, config, name, tls))
                };
                (client, Io::Stream { stream, write_buffer: Vec::new() }, local)
            }
        };
        Ok(Self {
            client,
            io,
            url: server.url,
            local,
            epoch,
            relayed: None,
            permitted: Vec::new(),
            wait_until: None,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Local address of the socket to the server.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The relayed address, once allocated.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// When to call [`Self::drive`] if nothing arrives before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.wait_until
    }

    /// Sends a packet from the relayed address to `to`.
    pub(super) fn send(&mut self, packet: &[u8], to: SocketAddr, now: Instant) {
        let turn_now = self.turn_now(now);
        if !self.permitted.contains(&to.ip()) {
            self.permitted.push(to.ip());
            // A channel saves 32 bytes per packet against a Send indication and installs the permission as well.
            if let Err(error) = self.client.bind_channel(TransportType::Udp, to, turn_now) {
                tracing::debug!(%error, %to, "failed to bind a TURN channel");
            }
        }
        match self.client.send_to(TransportType::Udp, to, packet, turn_now) {
            Ok(Some(transmit)) => {
                let bytes = transmit.data.build();
                self.io.write(&bytes, self.client.remote_addr());
            }
            Ok(None) => {}
            // Expected until the permission is installed; ICE retransmits its checks.
            Err(error) => tracing::trace!(%error, %to, "packet not relayed"),
        }
        self.flush(now);
    }

    /// Ready if there is data to read, or room to write buffered data.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = match &self.io {
            Io::Datagrams(socket) => socket.poll_recv_ready(cx).is_ready(),
            Io::Stream { stream, write_buffer } => {
                stream.poll_read_ready(cx).is_ready()
                    || (!write_buffer.is_empty() && stream.poll_write_ready(cx).is_ready())
            }
        };
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Reads received data, processes it and expired timers, and passes events to `on_event`.
    ///
    /// # Errors
    /// If the connection to the server is lost or the allocation has ended.
    pub(super) fn drive(&mut self, now: Instant, mut on_event: impl FnMut(RelayEvent)) -> io::Result<()> {
        let turn_now = self.turn_now(now);
        self.io.flush()?;
        let transport = self.client.transport();
        while let Some((bytes, from)) = self.io.read(self.client.remote_addr())? {
            let received = self.client.recv(TurnTransmit::new(bytes, transport, from, self.local), turn_now);
            if let (TurnRecvRet::PeerData(data), Some(relayed)) = (received, self.relayed) {
                on_event(RelayEvent::Packet { relayed, from: data.peer, bytes: data.data().to_vec() });
            }
            while let Some(data) = self.client.poll_recv(turn_now) {
                if let Some(relayed) = self.relayed {
                    on_event(RelayEvent::Packet { relayed, from: data.peer, bytes: data.data().to_vec() });
                }
            }
        }
        let closed = self.flush(now);
        while let Some(event) = self.client.poll_event() {
            match event {
                TurnEvent::AllocationCreated(_, relayed) => {
                    self.relayed = Some(relayed);
                    on_event(RelayEvent::Allocated(relayed));
                }
                TurnEvent::AllocationCreateFailed(_) => on_event(RelayEvent::Refused),
                TurnEvent::PermissionCreateFailed(_, peer) => {
                    self.permitted.retain(|permitted| *permitted != peer)
                }
                TurnEvent::ChannelCreateFailed(_, peer) => {
                    self.permitted.retain(|permitted| *permitted != peer.ip())
                }
                TurnEvent::PermissionCreated(..)
                | TurnEvent::ChannelCreated(..)
                | TurnEvent::TcpConnected(_)
                | TurnEvent::TcpConnectFailed(_) => {}
            }
        }
        if closed { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Deletes the allocation.
    pub(super) fn close(&mut self, now: Instant) {
        let turn_now = self.turn_now(now);
        if let Err(error) = self.client.delete(turn_now) {
            tracing::debug!(%error, "failed to delete the TURN allocation");
        }
        self.flush(now);
    }

    /// Sends pending messages of the TURN client and updates the deadline. Returns whether the client is closed.
    fn flush(&mut self, now: Instant) -> bool {
        let turn_now = self.turn_now(now);
        let poll = self.client.poll(turn_now);
        while let Some(transmit) = self.client.poll_transmit(turn_now) {
            self.io.write(transmit.data.as_ref(), transmit.to);
        }
        match poll {
            TurnPollRet::WaitUntil(until) => {
                self.wait_until = Some(until.to_std(self.epoch).max(now + Duration::from_millis(1)));
                false
            }
            TurnPollRet::Closed => true,
            TurnPollRet::AllocateTcpSocket { .. } | TurnPollRet::TcpClose { .. } => false,
        }
    }

    fn turn_now(&self, now: Instant) -> TurnInstant {
        let passed = now.saturating_duration_since(self.epoch);
        TurnInstant::from_nanos(i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl Io {
    fn write(&mut self, bytes: &[u8], to: SocketAddr) {
        match self {
            Self::Datagrams(socket) => {
                if let Err(error) = super::send_datagram(socket, bytes, to) {
                    tracing::debug!(%error, %to, "datagram not sent");
                }
            }
            Self::Stream { write_buffer, .. } => {
                if write_buffer.len() + bytes.len() <= MAX_WRITE_BUFFER_BYTES {
                    write_buffer.extend_from_slice(bytes);
                }
                // A broken stream is handled at the next read.
                if let Err(error) = self.flush() {
                    tracing::debug!(%error, %to, "failed to write to the TURN server");
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self::Stream { stream, write_buffer } = self else {
            return Ok(());
        };
        while !write_buffer.is_empty() {
            match stream.try_write(write_buffer) {
                Ok(written) => drop(write_buffer.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, remote: SocketAddr) -> io::Result<Option<(Vec<u8>, SocketAddr)>> {
        let mut buffer = vec![0; READ_BYTES];
        let read = match self {
            Self::Datagrams(socket) => socket.try_recv_from(&mut buffer),
            Self::Stream { stream, .. } => match stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => read.map(|length| (length, remote)),
            },
        };
        match read {
            Ok((length, from)) => {
                buffer.truncate(length);
                Ok(Some((buffer, from)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// TLS configuration for TURN servers: trusts the root certificates of the system and of `SSL_CERT_FILE`.
static TLS: LazyLock<Option<Arc<ClientConfig>>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let (found, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if found == 0 {
        tracing::error!("no root certificates found: TURN over TLS is not available");
        return None;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.ok()?.with_root_certificates(roots).with_no_client_auth();
    Some(Arc::new(config))
});
