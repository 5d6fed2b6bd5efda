//! Where a client connects from, to count how often it does.

use std::net::{IpAddr, SocketAddr};

use actix_web::{
    HttpRequest,
    http::header::{HeaderMap, HeaderName},
};

/// The client's address: as the proxy in front of us says, where one is configured, else the one that
/// connected. None where that is this machine: then it is a proxy that says nothing, or a developer.
pub fn of(request: &HttpRequest, header: Option<&HeaderName>) -> Option<IpAddr> {
    let said = header.and_then(|header| said(request.headers(), header));
    said.or_else(|| {
        let peer = request.peer_addr().as_ref().map(SocketAddr::ip)?.to_canonical();
        (!peer.is_loopback()).then_some(peer)
    })
}

/// The last entry: those before it came from the client, which may say anything.
fn said(headers: &HeaderMap, header: &HeaderName) -> Option<IpAddr> {
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
    fn the_proxys_word_counts_where_one_is_configured_and_only_its_own() {
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
