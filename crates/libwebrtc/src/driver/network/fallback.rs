//! When to use transports other than UDP from the host's own addresses: TCP connections to the peer, and STUN and TURN
//! servers. They are used only if UDP does not connect, since each costs sockets and time on both sides.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::Candidate;
use str0m::net::{Protocol, TcpType};

/// Time for UDP to connect before a fallback is used.
const UDP_TIMEOUT: Duration = Duration::from_secs(1);
/// Time after a TCP candidate for the peer to signal a UDP candidate.
const UDP_CANDIDATE_TIMEOUT: Duration = Duration::from_millis(150);

/// Available fallbacks and their timers.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// Addresses of passive TCP candidates (RFC 6544 §4.5) that were not connected to yet.
    passive_tcp: Vec<SocketAddr>,
    has_udp_candidate: bool,
    connect_tcp_at: Option<Instant>,
    query_servers_at: Option<Instant>,
}

/// Actions that are due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FallbackActions {
    /// Open TCP connections to these addresses.
    pub connect_tcp: Vec<SocketAddr>,
    /// Query the STUN and TURN servers.
    pub query_servers: bool,
}

impl Fallback {
    /// Adds a candidate of the peer.
    pub(super) fn add_remote_candidate(&mut self, candidate: &Candidate, now: Instant) {
        match (candidate.proto(), candidate.tcptype()) {
            (Protocol::Udp, _) => self.has_udp_candidate = true,
            (Protocol::Tcp, Some(TcpType::Passive)) if !self.passive_tcp.contains(&candidate.addr()) => {
                self.passive_tcp.push(candidate.addr());
            }
            _ => {}
        }
        if self.connect_tcp_at.is_none() && !self.passive_tcp.is_empty() {
            let timeout = if self.has_udp_candidate { UDP_TIMEOUT } else { UDP_CANDIDATE_TIMEOUT };
            self.connect_tcp_at = Some(now + timeout);
        } else if candidate.proto() == Protocol::Udp && self.connect_tcp_at.is_some() {
            self.connect_tcp_at = Some(now + UDP_TIMEOUT);
        }
    }

    /// Schedules the query of STUN and TURN servers: now if `at_once`, otherwise after [`UDP_TIMEOUT`].
    pub(super) fn schedule_servers(&mut self, at_once: bool, now: Instant) {
        self.query_servers_at = Some(if at_once { now } else { now + UDP_TIMEOUT });
    }

    /// When to call [`Self::take_due`].
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.connect_tcp_at, self.query_servers_at].into_iter().flatten().min()
    }

    /// Takes the actions that are due; none if ICE is `connected`.
    pub(super) fn take_due(&mut self, connected: bool, now: Instant) -> FallbackActions {
        let mut actions = FallbackActions::default();
        if self.connect_tcp_at.is_some_and(|at| now >= at) {
            self.connect_tcp_at = None;
            actions.connect_tcp = std::mem::take(&mut self.passive_tcp);
        }
        if self.query_servers_at.is_some_and(|at| now >= at) {
            self.query_servers_at = None;
            actions.query_servers = true;
        }
        if connected { FallbackActions::default() } else { actions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    const UDP: &str = "candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host";
    const TCP: &str = "candidate:2 1 tcp 1671430143 192.0.2.1 7881 typ host tcptype passive";
    const ACTIVE: &str = "candidate:3 1 tcp 1671430143 192.0.2.1 9 typ host tcptype active";

    fn candidate(line: &str) -> Candidate {
        Candidate::from_sdp_string(line).unwrap()
    }

    fn address() -> SocketAddr {
        "192.0.2.1:7881".parse().unwrap()
    }

    #[test]
    fn tcp_is_used_after_the_udp_timeout() {
        let (now, mut fallback) = (now(), Fallback::default());
        fallback.add_remote_candidate(&candidate(TCP), now);
        fallback.add_remote_candidate(&candidate(UDP), now);

        let at = fallback.deadline().unwrap();

        assert_eq!(at - now, UDP_TIMEOUT);
        assert_eq!(fallback.take_due(false, at - Duration::from_millis(1)).connect_tcp, []);
        assert_eq!(fallback.take_due(false, at).connect_tcp, [address()]);
        assert_eq!(
            (fallback.take_due(false, at), fallback.deadline()),
            (FallbackActions::default(), None),
            "each address is used once"
        );
    }

    #[test]
    fn without_a_udp_candidate_tcp_is_used_after_the_shorter_timeout() {
        let (now, mut fallback) = (now(), Fallback::default());
        fallback.add_remote_candidate(&candidate(TCP), now);

        assert_eq!(fallback.take_due(false, now + UDP_CANDIDATE_TIMEOUT).connect_tcp, [address()]);
    }

    #[test]
    fn tcp_is_not_used_if_udp_connects_or_for_active_candidates() {
        let (now, mut fallback) = (now(), Fallback::default());
        fallback.add_remote_candidate(&candidate(ACTIVE), now);
        assert_eq!(fallback.deadline(), None);

        fallback.add_remote_candidate(&candidate(TCP), now);
        assert_eq!(fallback.take_due(true, now + UDP_TIMEOUT), FallbackActions::default());
    }

    #[test]
    fn servers_are_queried_after_the_udp_timeout_or_at_once_if_required() {
        let (now, mut fallback) = (now(), Fallback::default());
        fallback.schedule_servers(false, now);
        assert!(!fallback.take_due(false, now).query_servers);
        assert!(fallback.take_due(false, now + UDP_TIMEOUT).query_servers);

        fallback.schedule_servers(true, now);
        assert!(fallback.take_due(false, now).query_servers);
    }
}
