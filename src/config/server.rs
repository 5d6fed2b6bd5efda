//! Where HTTP is served.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::config::Reader;

#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `HOST`, `PORT`
    pub bind: SocketAddr,
    /// Base of the URLs that clients get, where it is not the address of their request (`PUBLIC_URL`).
    pub public_url: Option<String>,
    pub timeouts: Timeouts,
    pub connections: ConnectionsConfig,
}

/// How long a client may keep the gateway waiting.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the head of a request, from the accept or the end of the response before it (`HTTP_HEAD_TIMEOUT_MS`).
    pub head: Duration,
    /// For the body of a request (`HTTP_BODY_TIMEOUT_MS`).
    pub body: Duration,
    /// Without taking 32 KiB of a response, or all of it (`HTTP_WRITE_TIMEOUT_MS`).
    pub write: Duration,
    /// For a WebSocket frame, from its first byte to its last (`WS_FRAME_TIMEOUT_MS`).
    pub frame: Duration,
}

/// How many connections may be open on one port.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionsConfig {
    /// `MAX_CONNECTIONS`
    pub max: usize,
    /// `MAX_CONNECTIONS_BY_ADDRESS`
    pub max_by_address: usize,
}

impl Reader<'_> {
    pub(super) fn server(&mut self, is_open: bool) -> ServerConfig {
        ServerConfig {
            bind: self.bind(is_open),
            public_url: self.url("PUBLIC_URL", &["http", "https"]),
            timeouts: self.timeouts(),
            connections: ConnectionsConfig {
                max: self.connections("MAX_CONNECTIONS", 20_000),
                max_by_address: self.connections("MAX_CONNECTIONS_BY_ADDRESS", 1_000),
            },
        }
    }

    fn timeouts(&mut self) -> Timeouts {
        Timeouts {
            head: self.millis("HTTP_HEAD_TIMEOUT_MS", 10_000),
            body: self.millis("HTTP_BODY_TIMEOUT_MS", 10_000),
            write: self.millis("HTTP_WRITE_TIMEOUT_MS", 30_000),
            frame: self.millis("WS_FRAME_TIMEOUT_MS", 10_000),
        }
    }

    fn connections(&mut self, name: &str, default: usize) -> usize {
        let number = self.parsed(name).unwrap_or(default);
        if number == 0 {
            self.problem(name, "must be more than 0");
        }
        number
    }

    /// Without API keys, anybody who reaches the gateway may use it: only this machine may reach it.
    fn bind(&mut self, is_open: bool) -> SocketAddr {
        let all_addresses = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let host = self.parsed("HOST").unwrap_or(if is_open { loopback } else { all_addresses });
        if is_open && !host.is_loopback() {
            self.problem(
                "HOST",
                format!("{host} is reachable without a key: set API_KEYS, or use 127.0.0.1"),
            );
        }
        SocketAddr::new(host, self.parsed("PORT").unwrap_or(8080))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{KEY, read};

    #[test]
    fn without_api_keys_the_gateway_serves_this_machine_only() {
        assert_eq!(read(&[]).unwrap().server.bind.to_string(), "127.0.0.1:8080");
        assert_eq!(read(&[("API_KEYS", KEY)]).unwrap().server.bind.to_string(), "[::]:8080");

        let problems = read(&[("HOST", "0.0.0.0")]).unwrap_err().problems;
        assert!(problems[0].contains("API_KEYS"), "{problems:?}");
    }
}
