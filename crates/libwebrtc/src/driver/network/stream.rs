//! A TCP stream with packets in it.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::framing::{self, Deframer};

/// Bytes that may wait to be written. A stream that is further behind drops whole packets, as a full socket of UDP
/// would: what is old is of no use.
const MAX_WAITING: usize = 128 * 1024;

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// See the module.
pub(super) struct PacketStream {
    stream: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    incoming: Deframer,
    waiting: Vec<u8>,
}

impl PacketStream {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        // A packet is to leave at once, not when more come.
        stream.set_nodelay(true)?;
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self { stream, local, remote, incoming: Deframer::default(), waiting: Vec::new() })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Sends a packet, or drops it if too much waits.
    pub(super) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        if self.waiting.len() + packet.len() > MAX_WAITING || !framing::frame(packet, &mut self.waiting) {
            tracing::debug!(waiting = self.waiting.len(), "packet not written");
            return Ok(());
        }
        self.write()
    }

    /// Whether there is something to read, or room to write what waits.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let readable = self.stream.poll_read_ready(cx).is_ready();
        let writable = !self.waiting.is_empty() && self.stream.poll_write_ready(cx).is_ready();
        if readable || writable { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Writes what waits and hands what arrived to `take`.
    ///
    /// # Errors
    /// When the stream is over.
    pub(super) fn work(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.write()?;
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.incoming.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            while let Some(packet) = self.incoming.next().map_err(io::Error::other)? {
                take(packet);
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.stream.try_write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
