//! LiveKit and its rooms.

use std::time::Duration;

use crate::{config::Reader, secret::Secret};

/// The longest lifetime of a token that a room can be joined with: 600 s of ours, or of the refresh tokens that
/// livekit-server gives to participants (roommanager.go), and the minute of clock skew that it allows.
pub const MAX_TOKEN_TTL: Duration = Duration::from_secs(660);

/// The pair of `livekit-server --dev`.
pub(super) const DEV_KEY: &str = "devkey";
pub(super) const DEV_SECRET: &str = "secret";
const DEV_URL: &str = "ws://127.0.0.1:7880";

#[derive(Clone, Debug)]
pub struct LivekitConfig {
    /// What clients connect to (`LIVEKIT_URL` or `LIVEKIT_WS_URL`): `ws://` or `wss://`.
    pub url: String,
    /// What the gateway connects to, where it differs (`LIVEKIT_INTERNAL_URL`).
    pub internal_url: String,
    /// `LIVEKIT_API_KEY`
    pub api_key: String,
    /// `LIVEKIT_API_SECRET`
    pub api_secret: Secret,
    /// The shortest wait before the agent joins its room again (`LIVEKIT_REJOIN_BACKOFF_MS`).
    pub rejoin_backoff: Duration,
}

#[derive(Clone, Debug)]
pub struct RoomConfig {
    /// How often a room that has subscribers is compared with LiveKit's own list (`ROSTER_RECONCILE_MS`).
    pub reconcile: Duration,
    /// How long somebody who was removed from a room is kept out (`DENY_TTL_MS`).
    pub deny_ttl: Duration,
    /// Prefix of the paths of recordings (`EGRESS_FILE_PREFIX`).
    pub egress_file_prefix: String,
}

impl Reader<'_> {
    pub(super) fn rooms(&mut self) -> RoomConfig {
        RoomConfig {
            reconcile: self.millis("ROSTER_RECONCILE_MS", 30_000),
            deny_ttl: self.deny_ttl(),
            egress_file_prefix: self.text("EGRESS_FILE_PREFIX").unwrap_or_else(|| "recordings/".into()),
        }
    }

    /// If an entry ended before the person's last token, that token would let them in again.
    fn deny_ttl(&mut self) -> Duration {
        let ttl = self.millis("DENY_TTL_MS", 900_000);
        if ttl < MAX_TOKEN_TTL {
            let min = MAX_TOKEN_TTL.as_millis();
            self.problem("DENY_TTL_MS", format!("must be at least {min}, the lifetime of tokens"));
        }
        ttl
    }

    pub(super) fn livekit(&mut self, is_open: bool) -> Option<LivekitConfig> {
        if self.text("LIVEKIT_WEBHOOK_SECRET").is_some() {
            self.note("LIVEKIT_WEBHOOK_SECRET", "ignored: LiveKit signs webhooks with LIVEKIT_API_SECRET");
        }
        if self.text("LIVEKIT_URL").as_deref() == Some("off") {
            return None;
        }
        let schemes = ["ws", "wss", "http", "https"];
        let url = self.url("LIVEKIT_URL", &schemes).or_else(|| self.url("LIVEKIT_WS_URL", &schemes));
        let internal_url = self.url("LIVEKIT_INTERNAL_URL", &schemes);
        let key = self.text("LIVEKIT_API_KEY");
        let secret = self.secret("LIVEKIT_API_SECRET");
        let rejoin_backoff = self.millis("LIVEKIT_REJOIN_BACKOFF_MS", 2_000);

        let is_unset = url.is_none() && key.is_none() && secret.is_none();
        if is_unset && !is_open {
            // API keys mean a deployment, which must not fall back to a well-known secret.
            return None;
        }
        let (api_key, api_secret) = match (key, secret) {
            (Some(key), Some(secret)) => (key, secret),
            (None, None) if is_unset => (DEV_KEY.to_owned(), Secret::new(DEV_SECRET)),
            (key, _) => {
                let missing = if key.is_none() { "LIVEKIT_API_KEY" } else { "LIVEKIT_API_SECRET" };
                self.problem(missing, "needed to sign LiveKit tokens");
                return None;
            }
        };
        let url = url.unwrap_or_else(|| DEV_URL.to_owned());
        Some(LivekitConfig {
            internal_url: internal_url.unwrap_or_else(|| url.clone()),
            url,
            api_key,
            api_secret,
            rejoin_backoff,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEY, read};

    #[test]
    fn with_nothing_set_the_pair_of_a_livekit_development_server_is_used() {
        let livekit = read(&[]).unwrap().livekit.unwrap();

        // livekit-server, cmd/server/main.go: `--dev` without keys uses "devkey" and "secret".
        assert_eq!(livekit.url, "ws://127.0.0.1:7880");
        assert_eq!((livekit.api_key.as_str(), livekit.api_secret.expose()), ("devkey", "secret"));
    }

    #[test]
    fn a_deployment_never_falls_back_to_the_development_pair() {
        assert!(read(&[("API_KEYS", KEY)]).unwrap().livekit.is_none());

        let problem = read(&[("API_KEYS", KEY), ("LIVEKIT_URL", "wss://x")]).unwrap_err();
        assert_eq!(problem.to_string(), "LIVEKIT_API_KEY: needed to sign LiveKit tokens");
    }

    #[test]
    fn an_entry_of_the_deny_list_outlives_every_token() {
        assert_eq!(read(&[("DENY_TTL_MS", "660000")]).unwrap().rooms.deny_ttl, MAX_TOKEN_TTL);

        let problem = read(&[("DENY_TTL_MS", "659999")]).unwrap_err();
        assert_eq!(problem.to_string(), "DENY_TTL_MS: must be at least 660000, the lifetime of tokens");
    }

    #[test]
    fn both_names_of_the_address_are_read() {
        let keys = [("LIVEKIT_API_KEY", "k"), ("LIVEKIT_API_SECRET", KEY)];
        for name in ["LIVEKIT_URL", "LIVEKIT_WS_URL"] {
            let config = read(&[keys[0], keys[1], (name, "wss://x.example/")]).unwrap();
            assert_eq!(config.livekit.unwrap().url, "wss://x.example");
        }
    }

    #[test]
    fn a_webhook_secret_is_noted_to_have_no_effect() {
        let notes = read(&[("API_KEYS", KEY), ("LIVEKIT_WEBHOOK_SECRET", "s")]).unwrap().notes;

        assert!(notes.iter().any(|note| note.starts_with("LIVEKIT_WEBHOOK_SECRET: ignored")), "{notes:?}");
    }
}
