//! The bounded queue of encoded bytes of one connection: a WebSocket or an event stream.
//!
//! Senders hold a [`SendQueue`]; the connection's response body is the [`SendQueueStream`]. Queued bytes are
//! counted and freed when the connection takes them, so a client that does not read costs at most the queue's
//! limit. Frames are encoded once and shared: an update to a thousand subscribers queues a thousand reference
//! counts, not a thousand copies.
//!
//! When the limit is reached, [`SendQueue::send`] fails with [`SendError::Full`] and its caller decides: a
//! session aborts the connection (its client can resume), a room sends a snapshot later.

use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    net::Shutdown,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use socket2::{SockRef, Socket};

/// Why bytes were not taken.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SendError {
    /// The client does not read fast enough: the limit is reached.
    #[error("the client does not read what it is sent")]
    Full,
    /// The connection is over.
    #[error("the connection is over")]
    Closed,
}

/// The writing end. Cheap to clone.
#[derive(Clone)]
pub struct SendQueue {
    shared: Arc<Shared>,
}

/// The reading end: what the connection sends. Dropping it closes the queue.
pub struct SendQueueStream {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    limit: usize,
    /// To end the connection although its client does not read.
    connection: Option<Connection>,
}

/// Ends a TCP connection whose client does not read. actix owns the socket and offers no way to shut it down.
///
/// Holds no second descriptor, since a process has a limited number of them, but the number of the first and
/// the kernel's own name for the socket.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    number: RawFd,
    /// `SO_COOKIE` (socket(7)): no other socket ever has it.
    cookie: u64,
}

impl Connection {
    /// The handle of this socket.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let number = socket.as_fd().as_raw_fd();
        let cookie = SockRef::from(socket).cookie()?;
        Ok(Self { number, cookie })
    }

    /// Whether the peer has closed the connection, or its sending half.
    pub(crate) fn is_closed_by_peer(self) -> bool {
        let Some(socket) = self.duplicate() else { return true };
        match socket.peek(&mut [MaybeUninit::uninit()]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Shuts both directions down, if the socket is still open.
    fn end(self) {
        if let Some(socket) = self.duplicate() {
            // Fails where the peer has closed the connection already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// The socket, if it is still open.
    #[expect(unsafe_code, reason = "there is no safe way to look at a descriptor that may be closed")]
    fn duplicate(self) -> Option<Socket> {
        // SAFETY: the number is only duplicated, which fails where it is closed. Where it is another
        // file's by now, the duplicate has another cookie, and it is closed without any other call.
        let borrowed = unsafe { BorrowedFd::borrow_raw(self.number) };
        let duplicate = borrowed.try_clone_to_owned().map(Socket::from).ok()?;
        duplicate.cookie().is_ok_and(|cookie| cookie == self.cookie).then_some(duplicate)
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    /// Bytes in the queue.
    queued: usize,
    /// Nothing more is accepted; the stream ends when the queue is empty.
    finished: bool,
    waker: Option<Waker>,
}

impl SendQueue {
    /// A queue of at most `limit` bytes, or of one message that is larger.
    pub fn new(limit: usize, connection: Option<Connection>) -> (Self, SendQueueStream) {
        let shared = Arc::new(Shared { state: Mutex::default(), limit, connection });
        (Self { shared: shared.clone() }, SendQueueStream { shared })
    }

    /// Queues bytes behind all others.
    pub fn send(&self, bytes: Bytes) -> Result<(), SendError> {
        self.queue(bytes, VecDeque::push_back)
    }

    /// Queues bytes ahead of all others: an answer that must not wait.
    pub fn send_first(&self, bytes: Bytes) -> Result<(), SendError> {
        self.queue(bytes, VecDeque::push_front)
    }

    /// Queues a last frame, where there is space for it, and ends the connection once everything is sent.
    pub fn finish_with(&self, last: Bytes) {
        let _ = self.send(last);
        self.finish();
    }

    /// Ends the connection once everything that is queued is sent.
    pub fn finish(&self) {
        let waker = {
            let mut state = self.shared.state.lock();
            state.finished = true;
            state.waker.take()
        };
        wake(waker);
    }

    /// Drops what is queued, and ends the connection once `last` is sent. That never happens where the client
    /// does not read: then [`abort`](Self::abort) ends the connection.
    pub fn abort_with(&self, last: Bytes) {
        {
            let mut state = self.shared.state.lock();
            if state.finished {
                return;
            }
            state.queued = last.len();
            state.queue.clear();
            state.queue.push_back(last);
        }
        self.finish();
    }

    /// Ends the connection at once, whatever is queued and whether or not the client reads.
    pub fn abort(&self) {
        {
            let mut state = self.shared.state.lock();
            state.queue.clear();
            state.queued = 0;
        }
        self.finish();
        if let Some(connection) = self.shared.connection {
            connection.end();
        }
    }

    /// Whether the connection still accepts bytes.
    pub fn is_open(&self) -> bool {
        !self.shared.state.lock().finished
    }

    fn queue(&self, bytes: Bytes, put: impl FnOnce(&mut VecDeque<Bytes>, Bytes)) -> Result<(), SendError> {
        let waker = {
            let mut state = self.shared.state.lock();
            if state.finished {
                return Err(SendError::Closed);
            }
            // A message larger than the limit is accepted by an empty queue: otherwise it could never be sent.
            if !state.queue.is_empty() && state.queued + bytes.len() > self.shared.limit {
                return Err(SendError::Full);
            }
            state.queued += bytes.len();
            put(&mut state.queue, bytes);
            state.waker.take()
        };
        wake(waker);
        Ok(())
    }
}

/// Wakes the connection, outside of the lock that its poll takes.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Stream for SendQueueStream {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.shared.state.lock();
        match state.queue.pop_front() {
            Some(bytes) => {
                state.queued -= bytes.len();
                Poll::Ready(Some(bytes))
            }
            None if state.finished => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for SendQueueStream {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.finished = true;
        state.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use futures::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn queued_bytes_are_counted_and_freed_when_they_are_sent() {
        let (queue, mut stream) = SendQueue::new(10, None);
        assert_eq!(queue.send("12345678".into()), Ok(()));
        assert_eq!(queue.send("123".into()), Err(SendError::Full));
        assert_eq!(stream.next().now_or_never(), Some(Some("12345678".into())));
        assert_eq!(queue.send("123".into()), Ok(()));
    }

    #[test]
    fn a_message_larger_than_the_limit_is_queued_alone() {
        let (queue, mut stream) = SendQueue::new(10, None);
        assert_eq!(queue.send("123456789012".into()), Ok(()));
        assert_eq!(queue.send("1".into()), Err(SendError::Full));
        assert_eq!(stream.next().now_or_never(), Some(Some("123456789012".into())));
        assert_eq!(queue.send("1".into()), Ok(()));
    }

    #[test]
    fn an_urgent_answer_overtakes_the_queue() {
        let (queue, mut stream) = SendQueue::new(10, None);
        queue.send("slow".into()).unwrap();
        queue.send_first("pong".into()).unwrap();
        assert_eq!(stream.next().now_or_never(), Some(Some("pong".into())));
    }

    #[test]
    fn a_finished_queue_sends_what_it_holds_and_accepts_no_more() {
        let (queue, mut stream) = SendQueue::new(10, None);
        queue.send("bye".into()).unwrap();
        queue.finish();
        assert_eq!(queue.send("more".into()), Err(SendError::Closed));
        assert_eq!(stream.next().now_or_never(), Some(Some("bye".into())));
        assert_eq!(stream.next().now_or_never(), Some(None));
    }

    #[test]
    fn an_aborted_client_gets_the_reason_instead_of_what_was_queued() {
        let (queue, mut stream) = SendQueue::new(10, None);
        queue.send("12345678".into()).unwrap();
        queue.abort_with("too slow".into());
        queue.abort_with("again".into());
        assert_eq!(queue.send("more".into()), Err(SendError::Closed));
        assert_eq!(stream.next().now_or_never(), Some(Some("too slow".into())));
        assert_eq!(stream.next().now_or_never(), Some(None));
    }

    #[test]
    fn a_dropped_connection_closes_its_queue() {
        let (queue, stream) = SendQueue::new(10, None);
        drop(stream);
        assert_eq!(queue.send("x".into()), Err(SendError::Closed));
        assert!(!queue.is_open());
    }

    #[test]
    fn a_connection_is_ended_by_its_number_and_no_other_that_has_the_number_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let connection = Connection::of(&server).unwrap();
        let another = Connection { cookie: connection.cookie + 1_000_000, ..connection };

        another.end();
        (&server).write_all(b"x").unwrap();
        connection.end();

        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"x");
        drop(server);
        connection.end();
    }

    #[tokio::test]
    async fn a_waiting_connection_is_woken() {
        let (queue, mut stream) = SendQueue::new(10, None);
        let taker = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        queue.send("x".into()).unwrap();
        assert_eq!(taker.await.unwrap(), Some("x".into()));
    }
}
