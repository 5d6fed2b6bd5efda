//! An address on a TURN server: what is sent from it goes to the server first, and what comes to it comes from
//! there.

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

/// Bytes that may wait to be written to a server that is reached by TCP. What is beyond that is lost.
const MAX_WAITING: usize = 128 * 1024;

/// Larger than any datagram, and many reads of a stream at once.
const READ_BYTES: usize = 16 * 1024;

/// How long a server may take to be found and reached.
const TIMEOUT: Duration = Duration::from_secs(8);

turn_client_proto::impl_client!(Client, (Udp, TurnClientUdp), (Tcp, TurnClientTcp), (Tls, TurnClientRustls));

/// See the module.
pub(super) struct Relay {
    client: Client,
    io: Io,
    url: String,
    local: SocketAddr,
    /// The zero of the client's clock.
    epoch: Instant,
    relayed: Option<SocketAddr>,
    /// Peers that the server was asked to let through.
    permitted: Vec<IpAddr>,
    wait_until: Option<Instant>,
}

enum Io {
    Datagrams(UdpSocket),
    Stream { stream: TcpStream, waiting: Vec<u8> },
}

/// What a relay has to tell.
#[derive(Debug)]
pub(super) enum News {
    /// The server relays for us from this address.
    Allocated(SocketAddr),
    /// The server does not.
    Refused,
    /// A packet of the peer's, to the relayed address.
    Packet { relayed: SocketAddr, from: SocketAddr, bytes: Vec<u8> },
}

impl Relay {
    /// Reaches a TURN server and asks it for an address.
    ///
    /// # Errors
    /// When the server can't be found or reached.
    pub(super) async fn open(
        server: ServerAddress,
        user: String,
        password: String,
        epoch: Instant,
    ) -> io::Result<Self> {
        tokio::time::timeout(TIMEOUT, Self::reach(server, &user, &password, epoch))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn reach(server: ServerAddress, user: &str, password: &str, epoch: Instant) -> io::Result<Self> {
        let Kind::Turn(transport) = server.kind else {
            return Err(io::Error::other("not a TURN server"));
        };
        let found = tokio::net::lookup_host((&*server.host, server.port)).await?.next();
        let remote = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let config = TurnConfig::new(TurnCredentials::new(user, password));
        let (client, io, local) = match transport {
            Transport::Udp => {
                let address = super::address_towards(remote).ok_or_else(|| io::Error::other("no route"))?;
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
                (client, Io::Stream { stream, waiting: Vec::new() }, local)
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

    /// Our address towards the server.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The address that the server relays for us.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// When [`Self::work`] is due if nothing comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.wait_until
    }

    /// Sends a packet from the relayed address.
    pub(super) fn send(&mut self, packet: &[u8], to: SocketAddr, now: Instant) {
        let at = self.at(now);
        if !self.permitted.contains(&to.ip()) {
            self.permitted.push(to.ip());
            // A channel spares 32 bytes a packet, and lets the peer through as well.
            if let Err(error) = self.client.bind_channel(TransportType::Udp, to, at) {
                tracing::debug!(%error, %to, "peer not let through by the TURN server");
            }
        }
        match self.client.send_to(TransportType::Udp, to, packet, at) {
            Ok(Some(transmit)) => {
                let bytes = transmit.data.build();
                self.io.write(&bytes, self.client.remote_addr());
            }
            Ok(None) => {}
            // Until the server has let the peer through; ICE tries again.
            Err(error) => tracing::trace!(%error, %to, "packet not relayed"),
        }
        self.flush(now);
    }

    /// Whether there is something to read, or room to write what waits.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = match &self.io {
            Io::Datagrams(socket) => socket.poll_recv_ready(cx).is_ready(),
            Io::Stream { stream, waiting } => {
                stream.poll_read_ready(cx).is_ready()
                    || (!waiting.is_empty() && stream.poll_write_ready(cx).is_ready())
            }
        };
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Reads what arrived, and lets the client act on it and on the time.
    ///
    /// # Errors
    /// When the server is gone.
    pub(super) fn work(&mut self, now: Instant, mut tell: impl FnMut(News)) -> io::Result<()> {
        let at = self.at(now);
        self.io.flush()?;
        let transport = self.client.transport();
        while let Some((bytes, from)) = self.io.read(self.client.remote_addr())? {
            let received = self.client.recv(TurnTransmit::new(bytes, transport, from, self.local), at);
            if let (TurnRecvRet::PeerData(data), Some(relayed)) = (received, self.relayed) {
                tell(News::Packet { relayed, from: data.peer, bytes: data.data().to_vec() });
            }
            while let Some(data) = self.client.poll_recv(at) {
                if let Some(relayed) = self.relayed {
                    tell(News::Packet { relayed, from: data.peer, bytes: data.data().to_vec() });
                }
            }
        }
        let closed = self.flush(now);
        while let Some(event) = self.client.poll_event() {
            match event {
                TurnEvent::AllocationCreated(_, relayed) => {
                    self.relayed = Some(relayed);
                    tell(News::Allocated(relayed));
                }
                TurnEvent::AllocationCreateFailed(_) => tell(News::Refused),
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

    /// Tells the server that the address is no longer needed.
    pub(super) fn close(&mut self, now: Instant) {
        let at = self.at(now);
        if let Err(error) = self.client.delete(at) {
            tracing::debug!(%error, "nothing to delete on the TURN server");
        }
        self.flush(now);
    }

    /// Sends what the client wants sent, and notes when it wants to be called; says whether it is over.
    fn flush(&mut self, now: Instant) -> bool {
        let at = self.at(now);
        let poll = self.client.poll(at);
        while let Some(transmit) = self.client.poll_transmit(at) {
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

    fn at(&self, now: Instant) -> TurnInstant {
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
            Self::Stream { waiting, .. } => {
                if waiting.len() + bytes.len() <= MAX_WAITING {
                    waiting.extend_from_slice(bytes);
                }
                // The error shows again when the stream is read.
                if let Err(error) = self.flush() {
                    tracing::debug!(%error, %to, "nothing written");
                }
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self::Stream { stream, waiting } = self else {
            return Ok(());
        };
        while !waiting.is_empty() {
            match stream.try_write(waiting) {
                Ok(written) => drop(waiting.drain(..written)),
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

/// How TURN servers prove who they are: by the machine's root certificates, and those in `SSL_CERT_FILE`.
static TLS: LazyLock<Option<Arc<ClientConfig>>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let (found, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if found == 0 {
        tracing::error!("this machine has no root certificates: TURN over TLS is not available");
        return None;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.ok()?.with_root_certificates(roots).with_no_client_auth();
    Some(Arc::new(config))
});
