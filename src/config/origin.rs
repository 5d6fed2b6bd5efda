//! Which web pages may use the gateway, and by which names.

use std::net::IpAddr;

use crate::config::Reader;

#[derive(Clone, Debug, Default)]
pub struct OriginConfig {
    /// Names that the gateway is reached by, with or without a port (`ALLOWED_HOSTS`). Empty: any name where there are
    /// API keys; this machine's and that of `PUBLIC_URL` where there are none.
    pub hosts: Vec<String>,
    /// Origins of other pages (`ALLOWED_ORIGINS`, or June's `CORS_ALLOW_ORIGINS`), in lower case.
    pub origins: Vec<String>,
    /// All of them: `*`.
    pub any_origin: bool,
}

impl Reader<'_> {
    pub(super) fn origin(&mut self, is_open: bool) -> OriginConfig {
        let list = |text: Option<String>| -> Vec<String> {
            let entries = text.unwrap_or_default().to_ascii_lowercase();
            entries.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
        };
        let hosts = list(self.text("ALLOWED_HOSTS"));
        for host in &hosts {
            if host.contains(['/', '*', ' ', '@']) {
                self.problem("ALLOWED_HOSTS", format!("\"{host}\" should look like host or host:port"));
            }
        }
        let alias = "CORS_ALLOW_ORIGINS";
        let name = if self.text("ALLOWED_ORIGINS").is_some() { "ALLOWED_ORIGINS" } else { alias };
        let (any, origins): (Vec<_>, Vec<_>) =
            list(self.text(name)).into_iter().partition(|origin| origin == "*");
        for origin in &origins {
            let host =
                origin.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, host)| host);
            if host.is_none_or(|host| host.is_empty() || host.contains(['/', '*', ' ', '@'])) {
                self.problem(
                    name,
                    format!("\"{origin}\" should look like https://host or https://host:port"),
                );
            }
        }
        if !any.is_empty() && is_open {
            self.problem(name, "* lets every web page use this gateway, which needs no keys: set API_KEYS");
        }
        OriginConfig { hosts, origins, any_origin: !any.is_empty() }
    }
}

/// Whether a host is this machine: `localhost` or a name under it (RFC 6761 §6.3), or a loopback address.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost"
        || name.ends_with(".localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEY, read};

    #[test]
    fn lists_are_read_under_both_names() {
        for name in ["ALLOWED_ORIGINS", "CORS_ALLOW_ORIGINS"] {
            let origin =
                read(&[(name, "https://App.example, http://localhost:3000"), ("ALLOWED_HOSTS", "june:80")])
                    .unwrap()
                    .origin;
            assert_eq!(origin.origins, ["https://app.example", "http://localhost:3000"]);
            assert_eq!((origin.hosts, origin.any_origin), (vec!["june:80".to_owned()], false));
        }
    }

    #[test]
    fn every_page_may_only_use_a_gateway_that_needs_keys() {
        assert!(read(&[("API_KEYS", KEY), ("ALLOWED_ORIGINS", "*")]).unwrap().origin.any_origin);
        let problem = read(&[("ALLOWED_ORIGINS", "*")]).unwrap_err().to_string();
        assert!(problem.starts_with("ALLOWED_ORIGINS: * lets every web page"), "{problem}");
    }

    #[test]
    fn what_is_no_origin_or_no_host_is_a_problem() {
        for origin in ["app.example", "null", "https://", "https://app.example/path", "https://*.example"] {
            assert!(read(&[("ALLOWED_ORIGINS", origin)]).is_err(), "{origin}");
        }
        for host in ["https://june.example", "*.example"] {
            assert!(read(&[("ALLOWED_HOSTS", host)]).is_err(), "{host}");
        }
    }

    #[test]
    fn names_of_this_machine_are_told_from_names_that_look_like_them() {
        for host in ["localhost", "LOCALHOST.", "june.localhost", "127.0.0.1", "127.8.8.8", "[::1]", "::1"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "june", ""] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
