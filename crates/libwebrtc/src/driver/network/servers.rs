//! Parsing of STUN and TURN server URIs (RFC 7064, RFC 7065).

use crate::peer_connection_factory::IceServer;

/// A STUN or TURN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerAddress {
    /// The URI as configured.
    pub url: String,
    pub host: String,
    pub port: u16,
    pub kind: Kind,
}

/// Kind of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// STUN: yields a server-reflexive address (RFC 8489).
    Stun,
    /// TURN: yields a relayed address (RFC 8656).
    Turn(Transport),
}

/// Transport to a TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
    Tls,
}

const PORT: u16 = 3_478;
const TLS_PORT: u16 = 5_349;

/// The supported URIs of `server`. Unsupported ones (`stuns:`, TURN over DTLS) are skipped.
pub(super) fn addresses(server: &IceServer) -> impl Iterator<Item = ServerAddress> + '_ {
    server.urls.iter().filter_map(|url| {
        let parsed = parse(url);
        if parsed.is_none() {
            tracing::debug!(url, "unsupported ICE server URI skipped");
        }
        parsed
    })
}

fn parse(url: &str) -> Option<ServerAddress> {
    let (scheme, rest) = url.split_once(':')?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let transport = query.split('&').find_map(|pair| pair.strip_prefix("transport="));
    let kind = match (scheme, transport) {
        ("stun", None) => Kind::Stun,
        ("turn", None | Some("udp")) => Kind::Turn(Transport::Udp),
        ("turn", Some("tcp")) => Kind::Turn(Transport::Tcp),
        ("turns", None | Some("tcp")) => Kind::Turn(Transport::Tls),
        _ => return None,
    };
    let default = if kind == Kind::Turn(Transport::Tls) { TLS_PORT } else { PORT };
    let (host, port) = match place.rsplit_once(':') {
        // The last colon of an IPv6 address in brackets does not separate a port.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (place, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| ServerAddress { url: url.to_owned(), host: host.to_owned(), port, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_uri_is_parsed() {
        let address = |host: &str, port, kind| Some((host.to_owned(), port, kind));
        for (url, expected) in [
            ("stun:stun.example.org", address("stun.example.org", 3478, Kind::Stun)),
            ("stun:192.0.2.1:19302", address("192.0.2.1", 19302, Kind::Stun)),
            (
                "turn:turn.example.org?transport=udp",
                address("turn.example.org", 3478, Kind::Turn(Transport::Udp)),
            ),
            (
                "turn:turn.example.org:80?transport=tcp",
                address("turn.example.org", 80, Kind::Turn(Transport::Tcp)),
            ),
            (
                "turns:turn.example.org:443?transport=tcp",
                address("turn.example.org", 443, Kind::Turn(Transport::Tls)),
            ),
            ("turns:turn.example.org", address("turn.example.org", 5349, Kind::Turn(Transport::Tls))),
            ("turn:[2001:db8::1]:3479", address("2001:db8::1", 3479, Kind::Turn(Transport::Udp))),
            ("turn:[2001:db8::1]", address("2001:db8::1", 3478, Kind::Turn(Transport::Udp))),
            ("https://example.org", None),
            ("turn:", None),
            ("turn:example.org:port", None),
            ("nonsense", None),
        ] {
            assert_eq!(parse(url).map(|parsed| (parsed.host, parsed.port, parsed.kind)), expected, "{url}");
        }
    }
}
