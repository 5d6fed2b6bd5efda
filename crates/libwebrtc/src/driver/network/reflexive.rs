//! Asks a STUN server how it sees us (RFC 8489 §2): from the connection's own socket, so that what it sees is the
//! address that the peer would see as well.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use turn_client_proto::stun::types::attribute::XorMappedAddress;
use turn_client_proto::stun::types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWriteVec, TransactionId,
};
use turn_client_proto::stun::types::prelude::MessageWrite as _;

/// The first wait for an answer; each further one is twice as long (RFC 8489 §6.2.1).
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// How often a server is asked.
const MAX_ASKED: u32 = 5;

/// A question to one server from one socket.
#[derive(Debug)]
pub(super) struct Question {
    pub server: SocketAddr,
    /// The socket it is asked from.
    pub local: SocketAddr,
    pub url: String,
    transaction: TransactionId,
    asked: u32,
    ask_at: Option<Instant>,
}

impl Question {
    pub(super) fn new(server: SocketAddr, local: SocketAddr, url: String, now: Instant) -> Self {
        Self { server, local, url, transaction: TransactionId::generate(), asked: 0, ask_at: Some(now) }
    }

    /// When [`Self::ask`] is due; `None` once the server has been given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ask_at
    }

    /// The request to send now, if one is due.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.ask_at.is_none_or(|at| now < at) {
            return None;
        }
        if self.asked == MAX_ASKED {
            self.ask_at = None;
            return None;
        }
        self.ask_at = Some(now + FIRST_WAIT * 2_u32.pow(self.asked));
        self.asked += 1;
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        Some(Message::builder(kind, self.transaction, MessageWriteVec::new()).finish())
    }

    /// How the server sees us, if `bytes` is its answer.
    pub(super) fn answer(&self, bytes: &[u8]) -> Option<SocketAddr> {
        let message = Message::from_bytes(bytes).ok()?;
        if message.transaction_id() != self.transaction || message.class() != MessageClass::Success {
            return None;
        }
        Some(message.attribute::<XorMappedAddress>().ok()?.addr(self.transaction))
    }
}

#[cfg(test)]
mod tests {
    use turn_client_proto::stun::types::prelude::MessageWriteExt as _;

    use super::*;
    use crate::clock::now;

    fn question(now: Instant) -> Question {
        let (server, local) = ("192.0.2.1:3478".parse().unwrap(), "192.0.2.2:5000".parse().unwrap());
        Question::new(server, local, "stun:192.0.2.1".to_owned(), now)
    }

    /// What a server answers to `request`.
    fn answer(request: &[u8], seen: SocketAddr) -> Vec<u8> {
        let request = Message::from_bytes(request).unwrap();
        let mut answer = Message::builder_success(&request, MessageWriteVec::new());
        answer.add_attribute(&XorMappedAddress::new(seen, request.transaction_id())).unwrap();
        answer.finish()
    }

    #[test]
    fn the_answer_says_how_the_server_sees_us() {
        let now = now();
        let mut question = question(now);
        let seen = "203.0.113.5:40000".parse().unwrap();
        let request = question.ask(now).unwrap();

        assert_eq!(question.answer(&answer(&request, seen)), Some(seen));
    }

    #[test]
    fn the_answer_to_another_question_is_none() {
        let now = now();
        let (mut other, question) = (question(now), question(now));
        let request = other.ask(now).unwrap();

        assert_eq!(question.answer(&answer(&request, other.local)), None);
        assert_eq!(question.answer(b"nonsense"), None);
    }

    #[test]
    fn a_silent_server_is_asked_ever_more_rarely_and_then_given_up() {
        let mut now = now();
        let (start, mut question, mut asked) = (now, question(now), Vec::new());
        while let Some(at) = question.deadline() {
            now = at;
            asked.extend(question.ask(now).map(|_| (now - start).as_millis()));
        }

        assert_eq!(asked, [0, 500, 1_500, 3_500, 7_500]);
    }
}
