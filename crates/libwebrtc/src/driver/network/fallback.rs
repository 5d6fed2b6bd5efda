//! When to try what costs more than a host's own UDP: TCP streams to the peer, and STUN and TURN servers. Where UDP
//! does not get through, and not before, since each of them costs the server and us sockets and time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::Candidate;
use str0m::net::{Protocol, TcpType};

/// How long UDP gets to work.
const WHILE_UDP_IS_TRIED: Duration = Duration::from_secs(1);
/// How long an address for UDP gets to be named after one for TCP was.
const WHILE_UDP_MAY_BE_NAMED: Duration = Duration::from_millis(150);

/// What there is to fall back on, and when to.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// Addresses that the peer listens on (RFC 6544 §4.5), and that were not dialled yet.
    passive: Vec<SocketAddr>,
    udp_named: bool,
    dial_at: Option<Instant>,
    ask_at: Option<Instant>,
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resort {
    /// Open streams to these addresses.
    pub dial: Vec<SocketAddr>,
    /// Ask the servers for addresses.
    pub ask_servers: bool,
}

impl Fallback {
    /// The peer named an address.
    pub(super) fn named(&mut self, candidate: &Candidate, now: Instant) {
        match (candidate.proto(), candidate.tcptype()) {
            (Protocol::Udp, _) => self.udp_named = true,
            (Protocol::Tcp, Some(TcpType::Passive)) if !self.passive.contains(&candidate.addr()) => {
                self.passive.push(candidate.addr());
            }
            _ => {}
        }
        if self.dial_at.is_none() && !self.passive.is_empty() {
            let patience = if self.udp_named { WHILE_UDP_IS_TRIED } else { WHILE_UDP_MAY_BE_NAMED };
            self.dial_at = Some(now + patience);
        } else if candidate.proto() == Protocol::Udp && self.dial_at.is_some() {
            self.dial_at = Some(now + WHILE_UDP_IS_TRIED);
        }
    }

    /// There are servers to ask: at once if nothing else may be used, else when UDP has had its time.
    pub(super) fn servers(&mut self, at_once: bool, now: Instant) {
        self.ask_at = Some(if at_once { now } else { now + WHILE_UDP_IS_TRIED });
    }

    /// When [`Self::due`] has something to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.dial_at, self.ask_at].into_iter().flatten().min()
    }

    /// What to do now: nothing if the peers are `connected`.
    pub(super) fn due(&mut self, connected: bool, now: Instant) -> Resort {
        let mut resort = Resort::default();
        if self.dial_at.is_some_and(|at| now >= at) {
            self.dial_at = None;
            resort.dial = std::mem::take(&mut self.passive);
        }
        if self.ask_at.is_some_and(|at| now >= at) {
            self.ask_at = None;
            resort.ask_servers = true;
        }
        if connected { Resort::default() } else { resort }
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
    fn tcp_waits_for_udp_to_fail() {
        let (now, mut fallback) = (now(), Fallback::default());
        fallback.named(&candidate(TCP), now);
        fallback.named(&candidate(UDP), now);

        let at = fallback.deadline().unwrap();

        assert_eq!(at - now, WHILE_UDP_IS_TRIED);
        assert_eq!(fallback.due(false, at - Duration::from_millis(1)).dial, []);
        assert_eq!(fallback.due(false, at).dial, [address()]);
        assert_eq!(
            (fallback.due(false, at), fallback.deadline()),
            (Resort::default(), None),
            "each is dialled once"
        );
    }

    #[test]
    fn where_there_is_no_udp_tcp_does_not_wait_long() {
        let (now, mut fallback) = (now(), Fallback::default());
        fallback.named(&candidate(TCP), now);

        assert_eq!(fallback.due(false, now + WHILE_UDP_MAY_BE_NAMED).dial, [address()]);
    }

    #[test]
    fn nothing_is_dialled_when_udp_works_or_the_peer_would_dial_itself() {
        let (now, mut fallback) = (now(), Fallback::default());
        fallback.named(&candidate(ACTIVE), now);
        assert_eq!(fallback.deadline(), None);

        fallback.named(&candidate(TCP), now);
        assert_eq!(fallback.due(true, now + WHILE_UDP_IS_TRIED), Resort::default());
    }

    #[test]
    fn servers_wait_for_udp_unless_nothing_else_may_be_used() {
        let (now, mut fallback) = (now(), Fallback::default());
        fallback.servers(false, now);
        assert!(!fallback.due(false, now).ask_servers);
        assert!(fallback.due(false, now + WHILE_UDP_IS_TRIED).ask_servers);

        fallback.servers(true, now);
        assert!(fallback.due(false, now).ask_servers);
    }
}
