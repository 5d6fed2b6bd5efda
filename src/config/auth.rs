//! Who may use the gateway, and how often.

use std::{path::PathBuf, time::Duration};

use actix_web::http::{Uri, header::HeaderName};

use crate::{
    auth::keys::KeyFile,
    config::{Reader, is_loopback_host},
    secret::Secret,
};

#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// Keys of backends (`API_KEYS`, separated by commas). Without any, and without a file of keys, the gateway is open
    /// and binds to a loopback address only.
    pub api_keys: Vec<Secret>,
    /// Where `june keys` keeps named keys (`API_KEYS_FILE`).
    pub keys_file: Option<PathBuf>,
    /// The file is there.
    pub has_keys_file: bool,
    /// Wrong keys and tokens per address and minute (`AUTH_FAILURES_PER_MINUTE`); 0 for no limit.
    pub failures_per_minute: u32,
    /// Verifies users' JWTs, HS256 (`AUTH_JWT_SECRET`, or MentraOS' `AUGMENTOS_AUTH_JWT_SECRET`).
    pub jwt_secret: Option<Secret>,
    /// Verifies users' JWTs, RS256, ES256 or EdDSA.
    pub jwks: Option<JwksConfig>,
    /// Required `iss` of users' JWTs (`AUTH_JWT_ISSUER`).
    pub issuer: Option<String>,
    /// Required `aud` of users' JWTs, or one of it (`AUTH_JWT_AUDIENCE`).
    pub audience: Option<String>,
    /// Accepts users' JWTs without `exp` (`MENTRA_COMPAT_NO_EXP`).
    pub may_lack_exp: bool,
    /// Signs control tokens (`CONTROL_TOKEN_SECRET`). If none is set, one is generated and kept in the data folder.
    pub control_secret: Option<Secret>,
    /// Lifetime of control tokens; none for one hour. There is no setting for it: tests shorten it.
    pub control_ttl: Option<Duration>,
    /// How long the tokens of a session can be renewed without the user's own token (`SESSION_MAX_AGE_MS`); none for
    /// a day.
    pub session_max_age: Option<Duration>,
}

impl AuthConfig {
    /// Whether the gateway needs no keys, and serves this machine only.
    pub(crate) fn is_open(&self) -> bool {
        self.api_keys.is_empty() && !self.has_keys_file
    }
}

/// An identity provider's public keys.
#[derive(Clone, Debug)]
pub struct JwksConfig {
    pub source: JwksSource,
    /// The shortest time between two fetches (`AUTH_JWKS_COOLDOWN_MS`).
    pub cooldown: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// `AUTH_JWKS_URL`
    Url(String),
    /// `AUTH_JWKS_FILE`
    File(PathBuf),
}

/// How often clients may open the control channel.
#[derive(Clone, Debug)]
pub struct ConnectConfig {
    /// Per user and minute (`CONNECTS_PER_MINUTE_BY_USER`); 0 for no limit.
    pub per_user: u32,
    /// Per address and minute (`CONNECTS_PER_MINUTE_BY_ADDRESS`); 0 for no limit.
    pub per_address: u32,
    /// The header in which the proxy puts the client's address (`CLIENT_ADDRESS_HEADER`).
    pub address_header: Option<HeaderName>,
}

impl Reader<'_> {
    pub(super) fn auth(&mut self) -> AuthConfig {
        let keys = self.text("API_KEYS").unwrap_or_default();
        let api_keys: Vec<_> =
            keys.split(',').map(str::trim).filter(|key| !key.is_empty()).map(Secret::new).collect();
        let keys_file = self.keys_file();
        let has_keys_file = match keys_file.read() {
            Ok(keys) => keys.is_some(),
            Err(error) => {
                self.problem("API_KEYS_FILE", error);
                true
            }
        };
        if api_keys.is_empty() && !has_keys_file {
            self.note("API_KEYS", "not set: the gateway needs no keys, and serves this machine only");
        }
        if !api_keys.is_empty() {
            self.note(
                "API_KEYS",
                "each key may do everything; `june keys add` makes keys with a name and a role",
            );
        }
        let session_max_age = self.millis("SESSION_MAX_AGE_MS", 24 * 3_600_000);
        let may_lack_exp = self.flag("MENTRA_COMPAT_NO_EXP");
        if may_lack_exp {
            self.note("MENTRA_COMPAT_NO_EXP", "users' tokens without exp are valid for ever");
        }
        AuthConfig {
            api_keys,
            keys_file: Some(keys_file.path().to_owned()),
            has_keys_file,
            failures_per_minute: self.parsed("AUTH_FAILURES_PER_MINUTE").unwrap_or(20),
            jwt_secret: self.secret("AUTH_JWT_SECRET").or_else(|| self.secret("AUGMENTOS_AUTH_JWT_SECRET")),
            jwks: self.jwks(),
            issuer: self.text("AUTH_JWT_ISSUER"),
            audience: self.text("AUTH_JWT_AUDIENCE"),
            may_lack_exp,
            control_secret: self.secret("CONTROL_TOKEN_SECRET"),
            control_ttl: None,
            session_max_age: Some(session_max_age),
        }
    }

    /// The file of named keys, which need not be there.
    pub(super) fn keys_file(&self) -> KeyFile {
        KeyFile::at(self.path("API_KEYS_FILE").unwrap_or_else(|| self.data_dir().join("keys.json")))
    }

    pub(super) fn connects(&mut self) -> ConnectConfig {
        ConnectConfig {
            per_user: self.parsed("CONNECTS_PER_MINUTE_BY_USER").unwrap_or(60),
            per_address: self.parsed("CONNECTS_PER_MINUTE_BY_ADDRESS").unwrap_or(600),
            address_header: self.parsed("CLIENT_ADDRESS_HEADER"),
        }
    }

    fn jwks(&mut self) -> Option<JwksConfig> {
        let cooldown = self.millis("AUTH_JWKS_COOLDOWN_MS", 30_000);
        let may_be_plain = self.flag("AUTH_JWKS_ALLOW_HTTP");
        let (url, file) = (self.url("AUTH_JWKS_URL", &["https", "http"]), self.path("AUTH_JWKS_FILE"));
        if url.is_some() && file.is_some() {
            self.problem("AUTH_JWKS_FILE", "set either it or AUTH_JWKS_URL");
        }
        let source = match url {
            Some(url) if may_be_plain || url.starts_with("https:") || is_loopback(&url) => {
                JwksSource::Url(url)
            }
            Some(_) => {
                self.problem(
                    "AUTH_JWKS_URL",
                    "keys fetched by plain http can be replaced on the way: use https, or set AUTH_JWKS_ALLOW_HTTP=true",
                );
                return None;
            }
            None => JwksSource::File(file?),
        };
        Some(JwksConfig { source, cooldown })
    }
}

/// Whether a URL is on this machine.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    is_loopback_host(url.host().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::keys::Role, config::ConfigError};

    fn read(variables: &[(&str, &str)]) -> Result<AuthConfig, ConfigError> {
        crate::config::read(variables).map(|config| config.auth)
    }

    #[test]
    fn keys_come_by_plain_http_from_this_machine_or_where_that_is_allowed() {
        for url in [
            "https://id.example/keys",
            "http://127.0.0.1:1/keys",
            "http://[::1]/keys",
            "http://localhost/keys",
        ] {
            let source = read(&[("AUTH_JWKS_URL", url)]).unwrap().jwks.unwrap().source;
            assert_eq!(source, JwksSource::Url(url.to_owned()));
        }
        for url in
            ["http://id.example/keys", "http://127.0.0.1.evil.example/keys", "http://localhost@evil.example/"]
        {
            assert!(read(&[("AUTH_JWKS_URL", url)]).unwrap_err().to_string().contains("plain http"), "{url}");
            assert!(read(&[("AUTH_JWKS_URL", url), ("AUTH_JWKS_ALLOW_HTTP", "true")]).is_ok());
        }
    }

    #[test]
    fn keys_come_from_one_place() {
        let problem = read(&[("AUTH_JWKS_URL", "https://x"), ("AUTH_JWKS_FILE", "keys.json")]).unwrap_err();
        assert_eq!(problem.to_string(), "AUTH_JWKS_FILE: set either it or AUTH_JWKS_URL");
    }

    #[test]
    fn a_file_of_keys_closes_the_gateway_and_one_that_cannot_be_read_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let setting = [("API_KEYS_FILE", path.to_str().unwrap())];
        assert!(read(&setting).unwrap().is_open());

        KeyFile::at(path.clone()).add("app", [Role::Backend].into(), None).unwrap();
        assert!(!read(&setting).unwrap().is_open());

        std::fs::write(&path, "{").unwrap();
        assert!(read(&setting).unwrap_err().to_string().starts_with("API_KEYS_FILE: "));
    }

    #[test]
    fn tokens_expire_unless_compatibility_is_set() {
        assert!(!read(&[]).unwrap().may_lack_exp);
        assert!(!read(&[("MENTRA_COMPAT_NO_EXP", "false")]).unwrap().may_lack_exp);
        assert!(read(&[("MENTRA_COMPAT_NO_EXP", "true")]).unwrap().may_lack_exp);
        assert!(read(&[("MENTRA_COMPAT_NO_EXP", "1")]).is_err());
    }
}
