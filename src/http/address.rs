//! The address that a client connects from, for rate limits.

use std::net::{IpAddr, SocketAddr};

use actix_web::{
    HttpRequest,
    http::header::{HeaderMap, HeaderName},
};

/// The address in the proxy's header, if one is configured; otherwise that of the connection. None for loopback: a
/// proxy that sends no header, or a developer.
pub(super) fn of(request: &HttpRequest, header: Option<&HeaderName>) -> Option<IpAddr> {
    let forwarded = header.and_then(|header| forwarded(request.headers(), header));
    forwarded.or_else(|| {
        let peer = request.peer_addr().as_ref().map(SocketAddr::ip)?.to_canonical();
        (!peer.is_loopback()).then_some(peer)
    })
}

/// The last entry is the proxy's; those before it were sent by the client, and cannot be trusted.
fn forwarded(headers: &HeaderMap, header: &HeaderName) -> Option<IpAddr> {
    let last = headers.get_all(header).last()?.to_str().ok()?;
    let last = last.rsplit(',').next()?.trim();
    last.parse().ok().or_else(|| last.parse().as_ref().map(SocketAddr::ip).ok())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

    fn from(peer: &str, forwarded: &[&str], header: Option<&HeaderName>) -> Option<String> {
        let mut request = TestRequest::default().peer_addr(peer.parse().unwrap());
        for value in forwarded {
            request = request.append_header((FORWARDED, *value));
        }
        of(&request.to_http_request(), header).map(|address| address.to_string())
    }

    #[test]
    fn only_the_last_entry_of_the_configured_header_counts() {
        let proxy = "10.0.0.1:5000";
        let header = Some(&FORWARDED);
        assert_eq!(from(proxy, &["203.0.113.7"], header).unwrap(), "203.0.113.7");
        assert_eq!(from(proxy, &["198.51.100.1, 203.0.113.7"], header).unwrap(), "203.0.113.7");
        assert_eq!(from(proxy, &["198.51.100.1", "[2001:db8::1]:443"], header).unwrap(), "2001:db8::1");
        assert_eq!(from(proxy, &["nonsense"], header).unwrap(), "10.0.0.1");
        assert_eq!(from(proxy, &["203.0.113.7"], None).unwrap(), "10.0.0.1", "anybody can send a header");
        assert_eq!(from("127.0.0.1:5000", &[], None), None);
        assert_eq!(from("[::ffff:127.0.0.1]:5000", &[], header), None);
    }
}
