//! How many connections may be open, in all and from one address.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{auth::admission::network, config::ConnectionsConfig, telemetry};

/// Counts the open connections of one port. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ConnectionLimit {
    counts: Arc<Mutex<Counts>>,
    max: usize,
    max_by_address: usize,
    /// Connections come from a proxy: its address says nothing about clients.
    behind_proxy: bool,
}

#[derive(Default)]
struct Counts {
    all: usize,
    /// Has an entry for each address with an open connection.
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    All,
    Address,
}

/// The place of one open connection, until it is dropped.
pub(crate) struct Place {
    counts: Arc<Mutex<Counts>>,
    address: Option<IpAddr>,
}

impl ConnectionLimit {
    pub(crate) fn new(config: &ConnectionsConfig, behind_proxy: bool) -> Self {
        // Files and outgoing connections need descriptors as well.
        let max = max_open_files().map_or(config.max, |files| config.max.min(files / 4 * 3));
        if max < config.max {
            tracing::info!(max, "connections are limited by the process's limit of open files");
        }
        Self { counts: Arc::default(), max, max_by_address: config.max_by_address, behind_proxy }
    }

    /// Counts a connection from this peer. Clients on this machine are not limited by address.
    pub(crate) fn take(&self, peer: Option<SocketAddr>) -> Result<Place, Refused> {
        let address = peer
            .map(|peer| peer.ip().to_canonical())
            .filter(|address| !self.behind_proxy && !address.is_loopback())
            .map(network);
        let taken = self.counts.lock().take(address, self.max, self.max_by_address);
        match taken {
            Ok(()) => {
                metrics::gauge!(telemetry::CONNECTIONS).increment(1);
                Ok(Place { counts: self.counts.clone(), address })
            }
            Err(refused) => {
                let by = match refused {
                    Refused::All => "all",
                    Refused::Address => "address",
                };
                metrics::counter!(telemetry::CONNECTIONS_REFUSED, "by" => by).increment(1);
                Err(refused)
            }
        }
    }
}

impl Counts {
    fn take(&mut self, address: Option<IpAddr>, max: usize, max_by_address: usize) -> Result<(), Refused> {
        if self.all >= max {
            return Err(Refused::All);
        }
        if let Some(address) = address {
            let of_address = self.by_address.get(&address).copied().unwrap_or(0);
            if of_address >= max_by_address {
                return Err(Refused::Address);
            }
            self.by_address.insert(address, of_address + 1);
        }
        self.all += 1;
        Ok(())
    }

    fn give_back(&mut self, address: Option<IpAddr>) {
        self.all -= 1;
        if let Some(address) = address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::CONNECTIONS).decrement(1);
        self.counts.lock().give_back(self.address);
    }
}

/// The process's soft limit of open files (proc(5), /proc/pid/limits); none if it is unlimited or unknown.
fn max_open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max: usize, max_by_address: usize, behind_proxy: bool) -> ConnectionLimit {
        ConnectionLimit::new(&ConnectionsConfig { max, max_by_address }, behind_proxy)
    }

    fn from(address: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(address.parse().unwrap(), 5000))
    }

    #[test]
    fn connections_over_the_limit_are_refused_until_one_ends() {
        let limit = limit(2, 2, false);
        let first = limit.take(from("127.0.0.1")).ok().unwrap();
        let _second = limit.take(from("192.0.2.1")).ok().unwrap();
        assert_eq!(limit.take(from("192.0.2.2")).err(), Some(Refused::All));

        drop(first);

        assert!(limit.take(from("192.0.2.2")).is_ok());
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let limit = limit(10, 2, false);
        let mut places = vec![limit.take(from("192.0.2.1")).ok().unwrap()];
        places.push(limit.take(from("::ffff:192.0.2.1")).ok().unwrap());

        assert_eq!(limit.take(from("192.0.2.1")).err(), Some(Refused::Address));

        assert!(limit.take(from("192.0.2.2")).is_ok());
        places.clear();
        assert!(limit.take(from("192.0.2.1")).is_ok());
        assert!(limit.counts.lock().by_address.is_empty(), "addresses without connections are forgotten");
    }

    #[test]
    fn a_household_with_ipv6_counts_as_one_address() {
        let limit = limit(10, 1, false);
        let _first = limit.take(from("2001:db8::1")).ok().unwrap();

        assert_eq!(limit.take(from("2001:db8::2")).err(), Some(Refused::Address));
    }

    #[test]
    fn this_machine_and_a_proxy_are_not_limited_by_address() {
        for (behind_proxy, peer) in [(false, "127.0.0.1"), (true, "192.0.2.1")] {
            let limit = limit(10, 1, behind_proxy);
            let _first = limit.take(from(peer)).ok().unwrap();
            assert!(limit.take(from(peer)).is_ok(), "{peer}");
        }
    }

    #[test]
    fn the_limit_leaves_descriptors_for_files() {
        let files = max_open_files().expect("Linux has /proc, and a limit here");

        assert!(limit(usize::MAX, 1, false).max < files);
    }
}
