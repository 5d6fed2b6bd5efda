//! What a client sends, as whole and valid frames.
//!
//! The reader of a `WebsocketContext` takes all bytes that there are before it decodes the first frame, and buffers
//! whatever length a header declares. So it is given one checked frame at a time, and no second one before the actor has
//! handled the first: answers keep their order, also where a later frame ends the connection.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};

use crate::{
    error::{Close, Code},
    protocol::Profile,
    tcp::Deadline,
    telemetry,
    ws::{
        frame,
        frame_validator::{FrameValidator, Taken, Violation},
        send_queue::SendQueue,
    },
};

/// The frames of one client. Ends with an error after a violation, with the close frame queued.
pub(super) struct Incoming<S> {
    bytes: S,
    /// Bytes that are not checked yet.
    unread: Bytes,
    validator: FrameValidator,
    /// The beginning of a frame that is not complete.
    begun: BytesMut,
    /// The last poll gave a frame.
    gave_frame: bool,
    frame_timeout: Duration,
    /// Set while a frame is incomplete.
    deadline: Option<Deadline>,
    send_queue: SendQueue,
    profile: Profile,
}

impl<S> Incoming<S> {
    pub(super) fn new(bytes: S, frame_timeout: Duration, send_queue: SendQueue, profile: Profile) -> Self {
        Self {
            bytes,
            unread: Bytes::new(),
            validator: FrameValidator::default(),
            begun: BytesMut::new(),
            gave_frame: false,
            frame_timeout,
            deadline: None,
            send_queue,
            profile,
        }
    }

    /// Takes unread bytes up to the end of a frame; gives it if it is complete.
    fn take(&mut self) -> Result<Option<Bytes>, Violation> {
        while !self.unread.is_empty() {
            let (length, taken) = self.validator.take(&self.unread)?;
            let bytes = self.unread.split_to(length);
            match taken {
                Taken::Part => self.begun.extend_from_slice(&bytes),
                Taken::Frame => {
                    self.deadline = None;
                    if self.begun.is_empty() {
                        return Ok(Some(bytes));
                    }
                    let mut frame = mem::take(&mut self.begun);
                    frame.extend_from_slice(&bytes);
                    return Ok(Some(frame.freeze()));
                }
                Taken::Oversized => {
                    self.begun = BytesMut::new();
                    self.refuse(Violation::FragmentTooLarge.reason());
                }
                Taken::Skipped if self.validator.is_within_frame() => {}
                Taken::Skipped => self.deadline = None,
            }
        }
        Ok(None)
    }

    /// Tells the client that a message is too large.
    fn refuse(&self, message: String) {
        // Lost if the queue is full; the session then aborts the connection of a client that does not read.
        let _ = self.send_queue.send(frame::text(&self.profile.refusal(Code::TooLarge, message)));
    }

    /// Queues the close frame of a connection that the client broke.
    fn fail(&mut self, close: Close, reason: &str) -> PayloadError {
        tracing::debug!(code = close.code(), reason, "a client broke the WebSocket protocol");
        self.unread = Bytes::new();
        self.begun = BytesMut::new();
        self.send_queue.finish_with(frame::close(close, reason));
        PayloadError::EncodingCorrupted
    }

    /// Ready if the frame that is incomplete has had its time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.validator.is_within_frame() {
            return Poll::Pending;
        }
        let timeout = self.frame_timeout;
        self.deadline.get_or_insert_with(|| Deadline::after(timeout)).poll(cx)
    }
}

impl<S: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Stream for Incoming<S> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if mem::take(&mut this.gave_frame) {
            // Makes the reader decode the frame. It polls again when the actor has handled it.
            return Poll::Pending;
        }
        loop {
            match this.take() {
                Ok(Some(frame)) => {
                    this.gave_frame = true;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(None) => {}
                Err(violation) => {
                    if violation == Violation::FragmentTooLarge {
                        this.refuse(violation.reason());
                    }
                    return Poll::Ready(Some(Err(this.fail(violation.close(), &violation.reason()))));
                }
            }
            match this.bytes.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(bytes))) => this.unread = bytes,
                Poll::Pending => {
                    return this.poll_deadline(cx).map(|()| {
                        metrics::counter!(telemetry::CONNECTIONS_TIMED_OUT, "for" => "frame").increment(1);
                        Some(Err(this.fail(Close::Policy, "a frame was not completed in time")))
                    });
                }
                ended @ Poll::Ready(_) => return ended,
            }
        }
    }
}
