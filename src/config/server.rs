//! Where HTTP is served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Reader;

#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `HOST`, `PORT`
    pub bind: SocketAddr,
    /// Base of the URLs that clients get, where it is not the address of their request (`PUBLIC_URL`).
    pub public_url: Option<String>,
}

impl Reader<'_> {
    pub(super) fn server(&mut self, is_open: bool) -> ServerConfig {
        ServerConfig { bind: self.bind(is_open), public_url: self.url("PUBLIC_URL", &["http", "https"]) }
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
