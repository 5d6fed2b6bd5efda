//! A TCP connection to the peer that carries framed packets (ICE-TCP, RFC 6544).

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::framing::{self, Deframer};

/// Maximum bytes in the write buffer. Beyond it whole packets are dropped, as with a full UDP socket: late media is of
/// no use.
const MAX_WRITE_BUFFER_BYTES: usize = 128 * 1024;

/// Size of the read buffer.
const READ_BYTES: usize = 16 * 1024;

/// A framed TCP connection; see the module documentation.
pub(super) struct PacketStream {
    stream: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    incoming: Deframer,
    write_buffer: Vec<u8>,
}

impl PacketStream {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        // Disables Nagle's algorithm, which would delay packets.
        stream.set_nodelay(true)?;
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self { stream, local, remote, incoming: Deframer::default(), write_buffer: Vec::new() })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Sends a packet, or drops it if the write buffer is full.
    pub(super) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        if self.write_buffer.len() + packet.len() > MAX_WRITE_BUFFER_BYTES
            || !framing::frame(packet, &mut self.write_buffer)
        {
            tracing::debug!(buffered = self.write_buffer.len(), "packet dropped");
            return Ok(());
        }
        self.flush()
    }

    /// Ready if there is data to read, or room to write buffered data.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let readable = self.stream.poll_read_ready(cx).is_ready();
        let writable = !self.write_buffer.is_empty() && self.stream.poll_write_ready(cx).is_ready();
        if readable || writable { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Writes buffered data and passes received packets to `on_packet`.
    ///
    /// # Errors
    /// If the stream is closed or broken, or the framing is invalid.
    pub(super) fn drive(&mut self, mut on_packet: impl FnMut(&[u8])) -> io::Result<()> {
        self.flush()?;
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.incoming.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            while let Some(packet) = self.incoming.next().map_err(io::Error::other)? {
                on_packet(packet);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.write_buffer.is_empty() {
            match self.stream.try_write(&self.write_buffer) {
                Ok(written) => drop(self.write_buffer.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
