//! Who is let onto the control channel, and how often they may try (protocol.md §7.2).
//!
//! An attempt counts for its address before its token is looked at, and for its user afterwards.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    auth::{Authenticator, Principal, rate::Rate},
    clock,
    config::ConnectConfig,
    error::{ApiError, Code},
    ids::UserId,
    telemetry,
};

/// Lets clients in. Cheap to clone.
#[derive(Clone)]
pub struct Admission {
    keys: Authenticator,
    rates: Arc<Rates>,
}

/// None where there is no limit.
struct Rates {
    by_user: Option<Mutex<Rate<UserId>>>,
    by_address: Option<Mutex<Rate<IpAddr>>>,
}

impl Admission {
    /// Admission by these keys, so often.
    pub fn new(keys: Authenticator, connects: &ConnectConfig) -> Self {
        fn rate<K: Eq + std::hash::Hash>(most: u32) -> Option<Mutex<Rate<K>>> {
            (most > 0).then(|| Mutex::new(Rate::per_minute(most)))
        }
        let rates = Rates { by_user: rate(connects.per_user), by_address: rate(connects.per_address) };
        Self { keys, rates: Arc::new(rates) }
    }

    /// Counts an attempt from an address.
    pub fn knock(&self, address: IpAddr) -> Result<(), ApiError> {
        let Some(rate) = &self.rates.by_address else { return Ok(()) };
        let taken = rate.lock().take(neighbourhood(address), clock::now());
        taken.map_err(|wait| too_often("address", wait))
    }

    /// Whose token this is, if they may come in.
    pub async fn by_token(&self, token: &str) -> Result<Principal, ApiError> {
        let grant = self.keys.verify(token).await?;
        if let Some(rate) = &self.rates.by_user {
            let taken = rate.lock().take(grant.user.clone(), clock::now());
            taken.map_err(|wait| too_often("user", wait))?;
        }
        Ok(grant)
    }
}

fn too_often(whose: &'static str, wait: Duration) -> ApiError {
    metrics::counter!(telemetry::CONNECTS_REFUSED, "by" => whose).increment(1);
    ApiError::new(Code::RateLimited, format!("too many connections of this {whose}; wait")).after(wait)
}

/// One household or machine has a whole /64 of IPv6 addresses.
fn neighbourhood(address: IpAddr) -> IpAddr {
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
        let of = |text: &str| neighbourhood(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:aaaa::1"), of("2001:db8:1:2:bbbb::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.7"), "203.0.113.7");
    }
}
