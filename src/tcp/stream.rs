//! A client's connection as the HTTP server reads and writes it, with deadlines.
//!
//! actix-http has a deadline for the head of the first request only, and one for a connection without any byte between
//! two requests. Here are those that are missing: for the head of every later request and the unread rest of a body,
//! and for a response that the client does not read. The middleware [`crate::http::middleware::body`] has the one for
//! bodies, since it can answer.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    clock,
    config::Timeouts,
    tcp::{Deadline, WriteStall, limit::Place},
    telemetry,
};

/// What a connection is doing. Shared by the stream and the requests that come on it.
#[derive(Clone, Default)]
pub(crate) struct Activity {
    /// Since when it waits for another request; none before the first one, which actix-http has a deadline for, and
    /// while one is answered.
    idle_since: Rc<Cell<Option<Instant>>>,
}

/// A request that is being answered, until it is dropped.
pub(crate) struct Answering {
    activity: Activity,
}

impl Activity {
    pub(crate) fn answer(&self) -> Answering {
        self.idle_since.set(None);
        Answering { activity: self.clone() }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.activity.idle_since.set(Some(clock::now()));
    }
}

/// The connection of one client.
pub(crate) struct ClientStream {
    tcp: TcpStream,
    place: Place,
    activity: Activity,
    head_timeout: Duration,
    idle: Option<Deadline>,
    stall: WriteStall,
}

impl ClientStream {
    pub(crate) fn new(tcp: TcpStream, place: Place, timeouts: &Timeouts) -> Self {
        Self {
            tcp,
            place,
            activity: Activity::default(),
            head_timeout: timeouts.head,
            idle: None,
            stall: WriteStall::new(timeouts.write),
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// The connection without its deadlines.
    pub(crate) fn into_parts(self) -> (TcpStream, Place) {
        (self.tcp, self.place)
    }

    /// Ready if the connection has waited for a request for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // A client that still reads the last response has the deadline for that.
        let Some(since) = self.activity.idle_since.get().filter(|_| !self.stall.is_stalled()) else {
            return Poll::Pending;
        };
        let at = since + self.head_timeout;
        let idle = self.idle.get_or_insert_with(|| Deadline::at(at));
        idle.move_to(at);
        ready!(idle.poll(cx));
        metrics::counter!(telemetry::CONNECTIONS_TIMED_OUT, "for" => "head").increment(1);
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "no request came"))
    }

    fn written(&mut self, written: usize, all: bool) {
        if all && self.stall.is_stalled() && self.activity.idle_since.get().is_some() {
            self.activity.idle_since.set(Some(clock::now()));
        }
        self.stall.took(written, all);
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.tcp).poll_read(cx, buffer) {
            Poll::Pending => self.poll_idle(cx).map(Err),
            read @ Poll::Ready(_) => read,
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.tcp).poll_write(cx, bytes) {
            Poll::Pending => {
                let error = ready!(self.stall.poll(cx));
                // Nobody reads what is left: the system need not keep it.
                let _ = socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(written)) => {
                self.written(written, written == bytes.len());
                Poll::Ready(Ok(written))
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }

    /// actix-http calls this after each response, when it reads no further: this is where a connection that has just
    /// become idle sets its timer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_idle(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
