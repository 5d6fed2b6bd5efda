//! Which web pages may use the gateway: `Host`, `Origin` and `Sec-Fetch-Site` are checked, and CORS headers are sent by
//! the same list (WHATWG Fetch §3.2).
//!
//! A browser sends requests to this machine for any page that asks it to, and a name that an attacker owns may resolve
//! to 127.0.0.1. So a gateway without API keys is reached by this machine's names only, and by no page but its own and
//! those of `ALLOWED_ORIGINS`. Programs send no `Origin`. actix-cors would not do: it lets a foreign page's
//! WebSocket pass, and knows neither the gateway's own origin nor problem documents.

use actix_web::{
    Error,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
            CACHE_CONTROL, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, UPGRADE, VARY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::Next,
    web,
};

use crate::{
    auth::AuthError,
    config::{Config, OriginConfig, is_loopback_host},
    http::{AppState, access::Right, error::ApiError},
    telemetry,
};

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, X-Api-Key, Last-Event-ID");
/// Chromium keeps a preflight for two hours at most.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("7200");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names and pages by which the gateway may be used.
#[derive(Clone, Debug)]
pub(crate) struct OriginPolicy {
    config: OriginConfig,
    /// Host and port of `PUBLIC_URL`.
    public: Option<String>,
}

/// A request as far as it matters here.
struct Asked<'a> {
    headers: &'a HeaderMap,
    /// The host as a proxy in front of the gateway says it was.
    forwarded_host: &'a str,
    /// It changes nothing, and opens no WebSocket.
    is_read: bool,
    is_page: bool,
    /// The gateway has no API keys.
    is_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Foreign {
    Host,
    Origin,
}

impl OriginPolicy {
    pub(crate) fn new(config: &Config) -> Self {
        let public = config.server.public_url.as_deref();
        Self {
            config: config.origin.clone(),
            public: public.and_then(authority).map(str::to_ascii_lowercase),
        }
    }

    /// The origin that the response is for; none where it is no other page's.
    fn check(&self, asked: &Asked<'_>) -> Result<Option<HeaderValue>, Foreign> {
        let mut hosts = asked.headers.get_all(HOST).map(|host| host.to_str().unwrap_or_default());
        let host = hosts.next().unwrap_or_default().to_ascii_lowercase();
        if hosts.next().is_some() || !self.may_be_called(&host, asked.is_open) {
            return Err(Foreign::Host);
        }
        let Some(origin) = asked.headers.get(ORIGIN) else {
            let from = asked.headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
            let is_foreign = matches!(from, Some(b"cross-site" | b"same-site"));
            // `<img src>` and links send no origin. With keys they get nothing, since they carry none.
            return if is_foreign && asked.is_open && !asked.is_page {
                Err(Foreign::Origin)
            } else {
                Ok(None)
            };
        };
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let is_own = authority(&text).map(without_default_port).is_some_and(|origin| {
            // Only where there are keys may a proxy say which name it was called by.
            let forwarded = (!asked.is_open).then_some(asked.forwarded_host);
            let own = [Some(host.as_str()), forwarded, self.public.as_deref()];
            own.into_iter().flatten().any(|own| without_default_port(own).eq_ignore_ascii_case(origin))
        });
        if is_own {
            return Ok(None);
        }
        if self.config.any_origin || self.config.origins.contains(&text) {
            return Ok(Some(origin.clone()));
        }
        if asked.is_open || !asked.is_read { Err(Foreign::Origin) } else { Ok(None) }
    }

    fn may_be_called(&self, host: &str, is_open: bool) -> bool {
        let name = without_port(host);
        let is_listed = self.config.hosts.iter().any(|listed| listed == host || listed == name);
        let is_public = self.public.as_deref().is_some_and(|public| without_port(public) == name);
        match (is_open, self.config.hosts.is_empty()) {
            (true, _) => is_listed || is_public || is_loopback_host(name),
            (false, false) => is_listed || is_public,
            (false, true) => true,
        }
    }
}

/// Host and port of an origin or a URL.
fn authority(url: &str) -> Option<&str> {
    url.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default())
}

/// The port is what follows the last colon outside of an IPv6 address.
fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && (name.ends_with(']') || !name.contains(':')) => {
            (name, port)
        }
        Some(_) | None => (host, ""),
    }
}

fn without_port(host: &str) -> &str {
    split_port(host).0
}

/// Schemes are not compared: a proxy in front of the gateway speaks https.
fn without_default_port(host: &str) -> &str {
    match split_port(host) {
        (name, "80" | "443") => name,
        _ => host,
    }
}

/// Refuses requests by foreign names and of foreign pages, answers preflights, and adds the headers of every response.
pub(crate) async fn check<B: MessageBody>(
    right: Right,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let Some(app) = request.app_data::<web::Data<AppState>>().cloned() else {
        return Err(ApiError::internal("the application has no state").into());
    };
    let method = request.method();
    let is_preflight =
        method == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let checked = if right.is_for_machines() {
        Ok(None)
    } else {
        app.origin.check(&Asked {
            headers: request.headers(),
            forwarded_host: request.connection_info().host(),
            is_read: (method == Method::GET || method == Method::HEAD)
                && !request.headers().contains_key(UPGRADE),
            is_page: right == Right::Page,
            is_open: app.authenticator.is_open(),
        })
    };
    let mut response = match &checked {
        Ok(Some(_)) if is_preflight => {
            request.into_response(actix_web::HttpResponse::new(StatusCode::NO_CONTENT)).map_into_right_body()
        }
        Ok(_) => next.call(request).await?.map_into_left_body(),
        Err(foreign) => request.error_response(refuse(*foreign)).map_into_right_body(),
    };
    let origin = checked.ok().flatten();
    add_headers(response.headers_mut(), origin, is_preflight, right == Right::Page);
    Ok(response)
}

fn refuse(foreign: Foreign) -> ApiError {
    let (label, message) = match foreign {
        Foreign::Host => ("host", "this gateway is not reached by this name: see ALLOWED_HOSTS"),
        Foreign::Origin => {
            ("origin", "web pages of this origin may not use the gateway: see ALLOWED_ORIGINS")
        }
    };
    metrics::counter!(telemetry::FOREIGN_REQUESTS, "by" => label).increment(1);
    AuthError::Forbidden(message).into()
}

fn add_headers(headers: &mut HeaderMap, origin: Option<HeaderValue>, is_preflight: bool, is_page: bool) {
    harden(headers);
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if !is_page && !headers.contains_key(CACHE_CONTROL) {
        // Tokens, and what users said.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let Some(origin) = origin else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if is_preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
}

/// What every response has, also where there is no such path.
pub(crate) fn harden(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    /// What becomes of a request with these headers.
    fn checked(
        settings: &[(&str, &str)],
        keys: bool,
        is_read: bool,
        headers: &[(&str, &str)],
    ) -> Result<Option<String>, Foreign> {
        let mut all = settings.to_vec();
        if keys {
            all.push(("API_KEYS", "key-of-the-tests-0123456789abcdef"));
        }
        let read =
            |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let policy = OriginPolicy::new(&Config::read(read).unwrap());
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        let request = request.to_http_request();
        let connection = request.connection_info();
        let asked = Asked {
            headers: request.headers(),
            forwarded_host: connection.host(),
            is_read,
            is_page: false,
            is_open: !keys,
        };
        policy.check(&asked).map(|origin| origin.map(|origin| origin.to_str().unwrap().to_owned()))
    }

    const LOCAL: (&str, &str) = ("host", "127.0.0.1:8080");

    #[test]
    fn without_keys_the_gateway_is_called_by_names_of_this_machine_only() {
        let called = |settings: &[(&str, &str)], host| checked(settings, false, true, &[("host", host)]);
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "june.localhost:1", "LOCALHOST"] {
            assert_eq!(called(&[], host), Ok(None), "{host}");
        }
        for host in ["rebound.example:8080", "127.0.0.1.example", "10.0.0.1:8080", ""] {
            assert_eq!(called(&[], host), Err(Foreign::Host), "{host}");
        }
        assert_eq!(called(&[("PUBLIC_URL", "https://june.example")], "june.example"), Ok(None));
        assert_eq!(called(&[("ALLOWED_HOSTS", "june.test:8080")], "june.test:8080"), Ok(None));
        assert_eq!(called(&[("ALLOWED_HOSTS", "june.test:8080")], "june.test:1"), Err(Foreign::Host));
        assert_eq!(checked(&[], false, true, &[]), Err(Foreign::Host), "no name at all");
        let twice = [LOCAL, ("host", "localhost")];
        assert_eq!(checked(&[], false, true, &twice), Err(Foreign::Host), "two names");
    }

    #[test]
    fn with_keys_any_name_is_good_unless_there_is_a_list() {
        let called = |settings: &[(&str, &str)], host| checked(settings, true, true, &[("host", host)]);
        assert_eq!(called(&[], "anything.example"), Ok(None));
        let listed = [("ALLOWED_HOSTS", "june.example"), ("PUBLIC_URL", "https://public.example")];
        for host in ["june.example", "june.example:8443", "public.example"] {
            assert_eq!(called(&listed, host), Ok(None), "{host}");
        }
        assert_eq!(called(&listed, "anything.example"), Err(Foreign::Host));
    }

    #[test]
    fn a_page_of_another_origin_is_refused_unless_it_is_listed() {
        let listed = [("ALLOWED_ORIGINS", "https://app.example")];
        let from = |keys, is_read, origin| checked(&listed, keys, is_read, &[LOCAL, ("origin", origin)]);
        let foreign = [
            "https://evil.example",
            "null",
            "http://127.0.0.1:3000",
            "http://127.0.0.1",
            "https://app.example:1",
        ];
        for origin in foreign {
            assert_eq!(from(false, true, origin), Err(Foreign::Origin), "{origin}");
            assert_eq!(from(true, false, origin), Err(Foreign::Origin), "{origin}");
            assert_eq!(from(true, true, origin), Ok(None), "reading takes a key: {origin}");
        }
        for (keys, is_read) in [(false, true), (false, false), (true, true), (true, false)] {
            let listed = from(keys, is_read, "https://APP.example").unwrap();
            assert_eq!(listed.as_deref(), Some("https://APP.example"));
            assert_eq!(from(keys, is_read, "http://127.0.0.1:8080"), Ok(None), "its own");
            assert_eq!(from(keys, is_read, "https://127.0.0.1:8080"), Ok(None), "behind a proxy");
        }
        let any = [("ALLOWED_ORIGINS", "*")];
        let echoed = checked(&any, true, false, &[LOCAL, ("origin", "https://x.example")]).unwrap();
        assert_eq!(echoed.as_deref(), Some("https://x.example"));
    }

    #[test]
    fn the_own_origin_is_also_the_public_one_and_with_keys_the_proxys() {
        let public = [("PUBLIC_URL", "https://june.example")];
        let own = [LOCAL, ("origin", "https://june.example")];
        assert_eq!(checked(&public, false, false, &own), Ok(None));
        assert_eq!(checked(&[], false, false, &own), Err(Foreign::Origin));
        let forwarded = [own[0], own[1], ("x-forwarded-host", "june.example")];
        assert_eq!(checked(&[], true, false, &forwarded), Ok(None));
        assert_eq!(checked(&[], false, false, &forwarded), Err(Foreign::Origin));
        let default_port = [("host", "june.example:443"), own[1]];
        assert_eq!(checked(&[], true, false, &default_port), Ok(None));
    }

    #[test]
    fn without_keys_an_image_or_a_link_of_another_page_reads_nothing() {
        for site in ["cross-site", "same-site"] {
            let asked = [LOCAL, ("sec-fetch-site", site)];
            assert_eq!(checked(&[], false, true, &asked), Err(Foreign::Origin), "{site}");
            assert_eq!(checked(&[], true, true, &asked), Ok(None), "{site}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(checked(&[], false, true, &[LOCAL, ("sec-fetch-site", site)]), Ok(None), "{site}");
        }
    }
}
