//! Who may open a control channel, and how often they may try (docs/PROTOCOL.md).
//!
//! An attempt counts for its address before its token is verified, and for its user afterwards.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    auth::{AuthError, Authenticator, Principal, failures::AuthFailures, rate::Rate},
    clock,
    config::ConnectConfig,
    ids::UserId,
    telemetry,
};

/// Authenticates clients of the control channel. Cheap to clone.
#[derive(Clone)]
pub struct Admission {
    authenticator: Authenticator,
    rates: Arc<Rates>,
    failures: AuthFailures,
}

/// None where there is no limit.
struct Rates {
    by_user: Option<Mutex<Rate<UserId>>>,
    by_address: Option<Mutex<Rate<IpAddr>>>,
}

impl Admission {
    pub(crate) fn new(
        authenticator: Authenticator,
        connects: &ConnectConfig,
        failures: AuthFailures,
    ) -> Self {
        fn rate<K: Eq + std::hash::Hash>(limit: u32) -> Option<Mutex<Rate<K>>> {
            (limit > 0).then(|| Mutex::new(Rate::per_minute(limit)))
        }
        let rates = Rates { by_user: rate(connects.per_user), by_address: rate(connects.per_address) };
        Self { authenticator, rates: Arc::new(rates), failures }
    }

    /// Counts an attempt from an address.
    pub(crate) fn check_address(&self, address: IpAddr) -> Result<(), AuthError> {
        let Some(rate) = &self.rates.by_address else { return Ok(()) };
        let taken = rate.lock().take(network(address), clock::now());
        taken.map_err(|retry_after| too_many("address", retry_after))
    }

    /// Verifies a token, and counts an attempt of its user; or a failure, if it is wrong.
    pub(crate) async fn by_token(
        &self,
        token: &str,
        address: Option<IpAddr>,
    ) -> Result<Principal, AuthError> {
        let principal = match self.authenticator.verify(token).await {
            Ok(principal) => principal,
            // Its sender guessed nothing.
            Err(_) if self.authenticator.api_key(token).is_some() => return Err(AuthError::NO_USER),
            Err(error) => return Err(self.failures.told(address, error)),
        };
        if let Some(rate) = &self.rates.by_user {
            let taken = rate.lock().take(principal.user.clone(), clock::now());
            taken.map_err(|retry_after| too_many("user", retry_after))?;
        }
        Ok(principal)
    }
}

fn too_many(by: &'static str, retry_after: Duration) -> AuthError {
    metrics::counter!(telemetry::CONNECTS_REFUSED, "by" => by).increment(1);
    AuthError::TooManyConnects { by, retry_after }
}

/// The /64 of an IPv6 address: a household or machine has all of it.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_household_count_as_one() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:aaaa::1"), of("2001:db8:1:2:bbbb::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.7"), "203.0.113.7");
    }
}
