//! Connections that become WebSockets, past actix-http's dispatcher.
//!
//! The dispatcher keeps 16 KiB of buffers for each connection, and copies what it sends through one of them. A
//! control channel is idle most of the time, and is often sent the same bytes as thousands of others. So a
//! connection that asks for an upgrade leaves the dispatcher, which has a hook for this (docs/decisions/0008). The
//! routes answer the request as usual; then the body of the response is written without copying, and what the client
//! sends is read into a buffer that all connections of a thread share. An idle connection has no buffer.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    net::Shutdown,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_codec::{Encoder, Framed};
use actix_http::{
    ConnectionType, HttpMessage, Request, Response,
    body::{BodySize, BoxBody, MessageBody},
    error::PayloadError,
    h1::{Codec, Message},
};
use actix_service::{
    Service, ServiceFactory,
    boxed::{BoxService, BoxServiceFactory},
    fn_factory,
};
use actix_web::{
    dev::ServiceResponse,
    http::StatusCode,
    rt::{net::TcpStream, time::timeout},
};
use bytes::{Buf, Bytes, BytesMut};
use futures::{FutureExt, Stream, future::LocalBoxFuture};

use crate::{
    config::Timeouts,
    tcp::{WriteStall, stream::ClientStream},
};

/// What answers requests.
pub(crate) type Routes = BoxServiceFactory<(), Request, ServiceResponse<BoxBody>, actix_web::Error, ()>;

/// Bytes that may wait for a client that reads slowly. Beyond that the body is not polled.
const MAX_WAITING_BYTES: usize = 32 * 1024;

/// How many buffers one system call sends.
const MAX_PIECES: usize = 16;

/// The size of a thread's read buffer.
const READ_BYTES: usize = 16 * 1024;

/// How long a client may take to close after the last byte was sent, before its connection is dropped.
const CLOSE_LINGER_TIMEOUT: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The service that actix-http passes upgrades to.
pub(crate) fn factory(
    routes: Routes,
    timeouts: Timeouts,
) -> impl ServiceFactory<
    (Request, Framed<ClientStream, Codec>),
    Config = (),
    Response = (),
    Error = actix_web::Error,
    InitError = (),
    Service = Upgrades,
> {
    fn_factory(move || routes.new_service(()).map(move |routes| Ok(Upgrades { routes: routes?, timeouts })))
}

/// Answers requests for an upgrade, and then drives their connections.
pub(crate) struct Upgrades {
    routes: BoxService<Request, ServiceResponse<BoxBody>, actix_web::Error>,
    timeouts: Timeouts,
}

impl Service<(Request, Framed<ClientStream, Codec>)> for Upgrades {
    type Response = ();
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<(), actix_web::Error>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), actix_web::Error>> {
        self.routes.poll_ready(cx)
    }

    fn call(&self, (request, framed): (Request, Framed<ClientStream, Codec>)) -> Self::Future {
        let connection = framed.into_parts();
        let (io, place) = connection.io.into_parts();
        let io = Rc::new(io);
        let Timeouts { frame: frame_timeout, write: write_timeout, .. } = self.timeouts;
        // Copied, since the buffer behind it is large.
        let early = Bytes::copy_from_slice(&connection.read_buf);
        // Only a route of WebSockets takes it. For all others the request has no body, so that none waits for it.
        request.extensions_mut().insert(Upgraded { io: io.clone(), early, frame_timeout });
        let answer = self.routes.call(request);
        let (codec, before) = (connection.codec, connection.write_buf);
        async move {
            let response: Response<BoxBody> = match answer.await {
                Ok(response) => response.into(),
                Err(error) => error.error_response().into(),
            };
            match send(&io, codec, before, response, write_timeout).await {
                Ok(()) => linger(&io).await,
                Err(error) => tracing::debug!(%error, "an upgraded connection broke"),
            }
            drop(place);
            Ok(())
        }
        .boxed_local()
    }
}

/// What the client sends after its request. In the request's extensions, for the route that upgrades.
pub(super) struct Upgraded {
    io: Rc<TcpStream>,
    /// What arrived together with the request.
    early: Bytes,
    frame_timeout: Duration,
}

impl Upgraded {
    /// How long a frame may take to arrive.
    pub(super) fn frame_timeout(&self) -> Duration {
        self.frame_timeout
    }
}

impl Stream for Upgraded {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.early.is_empty() {
            return Poll::Ready(Some(Ok(mem::take(&mut self.early))));
        }
        loop {
            // A broken connection ends like a closed one.
            let Ok(()) = ready!(self.io.poll_read_ready(cx)) else {
                return Poll::Ready(None);
            };
            let read = SCRATCH.with_borrow_mut(|scratch| {
                self.io.try_read(scratch).map(|length| Bytes::copy_from_slice(&scratch[..length]))
            });
            return Poll::Ready(match read {
                Ok(bytes) if !bytes.is_empty() => Some(Ok(bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(_) | Err(_) => None,
            });
        }
    }
}

/// Sends a response, after what is still unsent of earlier ones.
async fn send(
    io: &Rc<TcpStream>,
    codec: Codec,
    before: BytesMut,
    response: Response<BoxBody>,
    write_timeout: Duration,
) -> io::Result<()> {
    Outgoing::new(io.clone(), codec, before, response, write_timeout)?.await
}

/// Sends a response until its body ends.
struct Outgoing {
    io: Rc<TcpStream>,
    body: BoxBody,
    /// Frames the body of a response that is not an upgrade.
    codec: Option<Box<Codec>>,
    waiting: VecDeque<Bytes>,
    /// The bytes of `waiting`.
    length: usize,
    over: bool,
    stall: WriteStall,
}

impl Outgoing {
    fn new(
        io: Rc<TcpStream>,
        mut codec: Codec,
        mut head: BytesMut,
        response: Response<BoxBody>,
        write_timeout: Duration,
    ) -> io::Result<Self> {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let (mut response, body) = response.into_parts();
        if !upgraded {
            // The connection cannot return to the dispatcher.
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let size = body.size();
        codec.encode(Message::Item((response, size)), &mut head)?;
        let head = Bytes::copy_from_slice(&head);
        Ok(Self {
            io,
            body,
            codec: (!upgraded).then(|| Box::new(codec)),
            length: head.len(),
            waiting: VecDeque::from([head]),
            over: matches!(size, BodySize::None | BodySize::Sized(0)),
            stall: WriteStall::new(write_timeout),
        })
    }

    /// Queues a part of the body, or its end.
    fn push(&mut self, piece: Option<Bytes>) -> io::Result<()> {
        self.over = piece.is_none();
        let bytes = match &mut self.codec {
            None => piece.unwrap_or_default(),
            Some(codec) => {
                let mut framed = BytesMut::new();
                codec.encode(Message::Chunk(piece), &mut framed)?;
                framed.freeze()
            }
        };
        if !bytes.is_empty() {
            self.length += bytes.len();
            self.waiting.push_back(bytes);
        }
        Ok(())
    }

    /// The system accepted this many bytes.
    fn sent(&mut self, mut written: usize) {
        self.length -= written;
        while let Some(first) = self.waiting.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.waiting.pop_front();
        }
        // It grew while the client was slow.
        self.waiting.shrink_to(4);
    }

    fn try_send(&self) -> io::Result<usize> {
        if let (Some(only), 1) = (self.waiting.front(), self.waiting.len()) {
            return self.io.try_write(only);
        }
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        for (piece, bytes) in pieces.iter_mut().zip(&self.waiting) {
            *piece = IoSlice::new(bytes);
        }
        self.io.try_write_vectored(&pieces[..self.waiting.len().min(MAX_PIECES)])
    }
}

impl Future for Outgoing {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut more = true;
        loop {
            while more && !this.over && this.length < MAX_WAITING_BYTES {
                match Pin::new(&mut this.body).poll_next(cx) {
                    Poll::Ready(piece) => {
                        let piece = piece.transpose().map_err(|error| io::Error::other(error.to_string()))?;
                        this.push(piece)?;
                    }
                    Poll::Pending => more = false,
                }
            }
            if this.waiting.is_empty() {
                return if this.over { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            match this.try_send() {
                Ok(written) => {
                    this.sent(written);
                    this.stall.took(written, this.waiting.is_empty());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if this.io.poll_write_ready(cx)?.is_pending() {
                        let error = ready!(this.stall.poll(cx));
                        // Nobody reads what is left: the system need not keep it.
                        let _ = socket2::SockRef::from(&*this.io).set_linger(Some(Duration::ZERO));
                        return Poll::Ready(Err(error));
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Waits until the client has closed: a connection that is dropped with unread data is reset, and what was sent last
/// is lost.
async fn linger(io: &TcpStream) {
    if socket2::SockRef::from(io).shutdown(Shutdown::Write).is_err() {
        return;
    }
    let read_out = async {
        while io.readable().await.is_ok() {
            let read = SCRATCH.with_borrow_mut(|scratch| io.try_read(scratch));
            match read {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    };
    // A client that keeps sending is dropped.
    let _ = timeout(CLOSE_LINGER_TIMEOUT, read_out).await;
}
