//! Secrets that can be guessed are refused.

use crate::{
    config::{AuthConfig, LivekitConfig, Reader, livekit, origin},
    secret::Secret,
};

/// HMAC-SHA256 needs a key as long as its output (RFC 2104 §3).
const MIN_SIGNING_BYTES: usize = 32;

const MIN_KEY_BYTES: usize = 16;

/// Fewer different characters than these are a placeholder, not a secret.
const MIN_VARIETY: usize = 4;

struct Checked<'a> {
    name: &'static str,
    secret: &'a Secret,
    min_bytes: usize,
}

impl Reader<'_> {
    /// A gateway that serves this machine only may have short secrets, with a note.
    pub(super) fn check_secrets(
        &mut self,
        is_open: bool,
        auth: &AuthConfig,
        livekit: Option<&LivekitConfig>,
    ) {
        let users = if self.text("AUTH_JWT_SECRET").is_some() {
            "AUTH_JWT_SECRET"
        } else {
            "AUGMENTOS_AUTH_JWT_SECRET"
        };
        let livekit = livekit.filter(|livekit| !(is_open && is_development_pair(livekit)));
        let signing = [
            auth.jwt_secret.as_ref().map(|secret| (users, secret)),
            auth.control_secret.as_ref().map(|secret| ("CONTROL_TOKEN_SECRET", secret)),
            livekit.map(|livekit| ("LIVEKIT_API_SECRET", &livekit.api_secret)),
        ];
        let signing = signing.into_iter().flatten();
        let keys = auth.api_keys.iter().map(|key| ("API_KEYS", key));
        let all: Vec<Checked<'_>> = signing
            .map(|(name, secret)| Checked { name, secret, min_bytes: MIN_SIGNING_BYTES })
            .chain(keys.map(|(name, secret)| Checked { name, secret, min_bytes: MIN_KEY_BYTES }))
            .collect();
        for (at, Checked { name, secret, min_bytes }) in all.iter().enumerate() {
            let text = secret.expose();
            let variety = text.bytes().collect::<std::collections::BTreeSet<_>>().len();
            let same = all[..at].iter().find(|earlier| earlier.secret.expose() == text);
            if variety < MIN_VARIETY {
                self.problem(name, "is a few characters repeated: use `openssl rand -base64 32`");
            } else if text.len() < *min_bytes {
                let weak = format!("has less than {min_bytes} bytes: use `openssl rand -base64 32`");
                self.weak_secret(is_open, name, &weak);
            }
            if let Some(same) = same {
                self.weak_secret(is_open, name, &format!("is the same as {}: each needs its own", same.name));
            }
        }
    }

    fn weak_secret(&mut self, is_open: bool, name: &str, weak: &str) {
        if is_open {
            self.note(name, format!("{weak}. Good enough for this machine only"));
        } else {
            self.problem(name, weak);
        }
    }
}

/// Whether this is the pair of a `livekit-server --dev` on this machine.
fn is_development_pair(livekit: &LivekitConfig) -> bool {
    let pair = (livekit.api_key.as_str(), livekit.api_secret.expose());
    let host =
        livekit.url.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        Some(_) | None => host,
    };
    pair == (livekit::DEV_KEY, livekit::DEV_SECRET) && origin::is_loopback_host(host)
}

#[cfg(test)]
mod tests {
    use crate::config::{KEY, read};

    const GOOD: [&str; 3] = [
        "users-secret-with-more-than-32-bytes",
        "control-secret-of-more-than-32-bytes",
        "livekit-secret-of-more-than-32-bytes",
    ];

    fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let good = [
            ("API_KEYS", KEY),
            ("AUTH_JWT_SECRET", GOOD[0]),
            ("CONTROL_TOKEN_SECRET", GOOD[1]),
            ("LIVEKIT_URL", "wss://livekit.example"),
            ("LIVEKIT_API_KEY", "key"),
            ("LIVEKIT_API_SECRET", GOOD[2]),
        ];
        let replaced = |(name, _): &&(&str, &str)| !more.iter().any(|(other, _)| other == name);
        good.iter().filter(replaced).chain(more).copied().collect()
    }

    #[test]
    fn a_deployment_needs_long_secrets_and_one_for_each_purpose() {
        assert!(read(&with(&[])).is_ok());
        for (name, value) in [
            ("AUTH_JWT_SECRET", "short"),
            ("CONTROL_TOKEN_SECRET", "31-bytes-are-one-byte-too-few-.."),
            ("LIVEKIT_API_SECRET", "secret"),
            ("API_KEYS", "backend"),
            ("CONTROL_TOKEN_SECRET", GOOD[0]),
            ("LIVEKIT_API_SECRET", GOOD[1]),
            ("API_KEYS", GOOD[2]),
            ("API_KEYS", "one-key-of-16-bytes,one-key-of-16-bytes"),
            ("AUTH_JWT_SECRET", &"a".repeat(64)),
            ("API_KEYS", &"ab".repeat(32)),
        ] {
            let value = if value.starts_with("31-") { &value[..31] } else { value };
            let problems = read(&with(&[(name, value)])).unwrap_err().problems;
            assert_eq!(problems.len(), 1, "{name}={value}: {problems:?}");
            let purposes = ["AUTH_JWT_SECRET", "CONTROL_TOKEN_SECRET", "LIVEKIT_API_SECRET", "API_KEYS"];
            assert!(purposes.iter().any(|purpose| problems[0].starts_with(purpose)), "{problems:?}");
            assert!(!problems[0].contains(value), "a secret is not printed: {problems:?}");
        }
    }

    #[test]
    fn the_old_name_of_the_users_secret_is_checked_as_well() {
        let problem = read(&[("API_KEYS", KEY), ("AUGMENTOS_AUTH_JWT_SECRET", "short")]).unwrap_err();
        assert!(problem.to_string().starts_with("AUGMENTOS_AUTH_JWT_SECRET: has less than 32 bytes"));
    }

    #[test]
    fn on_this_machine_only_short_secrets_are_noted_and_placeholders_refused() {
        let short = [("AUTH_JWT_SECRET", "short"), ("CONTROL_TOKEN_SECRET", "short")];
        let notes = read(&short).unwrap().notes;
        for note in ["AUTH_JWT_SECRET: has less", "CONTROL_TOKEN_SECRET: is the same as AUTH_JWT_SECRET"] {
            assert!(notes.iter().any(|line| line.starts_with(note)), "{notes:?}");
        }
        for placeholder in ["s", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"] {
            assert!(read(&[("AUTH_JWT_SECRET", placeholder)]).is_err(), "{placeholder}");
        }
    }

    #[test]
    fn the_development_pair_of_livekit_is_for_this_machine() {
        let pair = |url| {
            read(&[("LIVEKIT_URL", url), ("LIVEKIT_API_KEY", "devkey"), ("LIVEKIT_API_SECRET", "secret")])
                .unwrap()
                .notes
        };
        let is_noted = |notes: Vec<String>| notes.iter().any(|note| note.starts_with("LIVEKIT_API_SECRET"));
        assert!(!is_noted(read(&[]).unwrap().notes));
        for url in ["ws://127.0.0.1:7880", "ws://localhost:7880", "ws://[::1]:7880", "http://localhost"] {
            assert!(!is_noted(pair(url)), "{url}");
        }
        assert!(is_noted(pair("ws://livekit.example:7880")));
    }
}
