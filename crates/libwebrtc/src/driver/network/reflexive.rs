//! Server-reflexive addresses by STUN binding requests (RFC 8489 §2). A request is sent from the connection's own
//! socket, so that the server sees the same NAT mapping as the peer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use turn_client_proto::stun::types::attribute::XorMappedAddress;
use turn_client_proto::stun::types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWriteVec, TransactionId,
};
use turn_client_proto::stun::types::prelude::MessageWrite as _;

/// Initial retransmission timeout; it doubles with each request (RFC 8489 §6.2.1).
const INITIAL_RTO: Duration = Duration::from_millis(500);
/// Maximum number of requests to a server.
const MAX_REQUESTS: u32 = 5;

/// A binding request to one server from one socket.
#[derive(Debug)]
pub(super) struct BindingRequest {
    pub server: SocketAddr,
    /// Address of the socket it is sent from.
    pub local: SocketAddr,
    pub url: String,
    transaction: TransactionId,
    sent: u32,
    send_at: Option<Instant>,
}

impl BindingRequest {
    pub(super) fn new(server: SocketAddr, local: SocketAddr, url: String, now: Instant) -> Self {
        Self { server, local, url, transaction: TransactionId::generate(), sent: 0, send_at: Some(now) }
    }

    /// When to call [`Self::poll_request`]; `None` after the last request timed out.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.send_at
    }

    /// Returns the STUN message to send, if one is due.
    pub(super) fn poll_request(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.send_at.is_none_or(|at| now < at) {
            return None;
        }
        if self.sent == MAX_REQUESTS {
            self.send_at = None;
            return None;
        }
        self.send_at = Some(now + INITIAL_RTO * 2_u32.pow(self.sent));
        self.sent += 1;
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        Some(Message::builder(kind, self.transaction, MessageWriteVec::new()).finish())
    }

    /// The mapped address, if `bytes` is the response to this request.
    pub(super) fn mapped_address(&self, bytes: &[u8]) -> Option<SocketAddr> {
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

    fn binding_request(now: Instant) -> BindingRequest {
        let (server, local) = ("192.0.2.1:3478".parse().unwrap(), "192.0.2.2:5000".parse().unwrap());
        BindingRequest::new(server, local, "stun:192.0.2.1".to_owned(), now)
    }

    /// The success response of a server to `request`.
    fn response(request: &[u8], mapped: SocketAddr) -> Vec<u8> {
        let request = Message::from_bytes(request).unwrap();
        let mut response = Message::builder_success(&request, MessageWriteVec::new());
        response.add_attribute(&XorMappedAddress::new(mapped, request.transaction_id())).unwrap();
        response.finish()
    }

    #[test]
    fn a_response_contains_the_mapped_address() {
        let now = now();
        let mut request = binding_request(now);
        let mapped = "203.0.113.5:40000".parse().unwrap();
        let message = request.poll_request(now).unwrap();

        assert_eq!(request.mapped_address(&response(&message, mapped)), Some(mapped));
    }

    #[test]
    fn a_response_to_another_request_is_ignored() {
        let now = now();
        let (mut other, request) = (binding_request(now), binding_request(now));
        let message = other.poll_request(now).unwrap();

        assert_eq!(request.mapped_address(&response(&message, other.local)), None);
        assert_eq!(request.mapped_address(b"nonsense"), None);
    }

    #[test]
    fn requests_to_a_silent_server_are_retransmitted_with_backoff_and_then_time_out() {
        let mut now = now();
        let (start, mut request, mut sent) = (now, binding_request(now), Vec::new());
        while let Some(at) = request.deadline() {
            now = at;
            sent.extend(request.poll_request(now).map(|_| (now - start).as_millis()));
        }

        assert_eq!(sent, [0, 500, 1_500, 3_500, 7_500]);
    }
}
