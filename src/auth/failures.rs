//! Slows down whoever tries keys and tokens: so many failures per address and minute, then 429.
//!
//! Only failures count, and a valid key or token is always accepted, so that nobody is locked out by others behind the
//! same proxy.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::{
    auth::{AuthError, admission::network, rate::Rate},
    clock, telemetry,
};

/// Failures by address. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AuthFailures {
    /// None where there is no limit.
    by_address: Option<Arc<Mutex<Rate<IpAddr>>>>,
}

impl AuthFailures {
    /// So many per minute; 0 for no limit.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { by_address: (per_minute > 0).then(|| Arc::new(Mutex::new(Rate::per_minute(per_minute)))) }
    }

    /// What somebody at this address is told, whose request failed for this reason. Only what no honest client
    /// sends counts: not an expired token.
    pub(crate) fn told(&self, address: Option<IpAddr>, error: AuthError) -> AuthError {
        let AuthError::InvalidToken(_) = error else { return error };
        let taken = match (&self.by_address, address) {
            (Some(by_address), Some(address)) => by_address.lock().take(network(address), clock::now()),
            (None, _) | (_, None) => Ok(()),
        };
        let label = if taken.is_ok() { "refused" } else { "limited" };
        metrics::counter!(telemetry::AUTH_FAILURES, "outcome" => label).increment(1);
        match taken {
            Ok(()) => error,
            Err(retry_after) => AuthError::TooManyFailures { retry_after },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_are_limited_by_address_and_expired_ones_are_not() {
        let failures = AuthFailures::new(2);
        let address = |last| Some(IpAddr::from([10, 0, 0, last]));
        let wrong = AuthError::InvalidToken("wrong");
        for _ in 0..2 {
            assert_eq!(failures.told(address(1), wrong.clone()), wrong);
        }
        assert!(matches!(failures.told(address(1), wrong.clone()), AuthError::TooManyFailures { .. }));
        assert_eq!(failures.told(address(2), wrong.clone()), wrong, "another address");
        assert_eq!(failures.told(address(1), AuthError::ExpiredToken), AuthError::ExpiredToken);
        assert_eq!(failures.told(None, wrong.clone()), wrong);
        let unlimited = AuthFailures::new(0);
        assert!((0..50).all(|_| unlimited.told(address(1), wrong.clone()) == wrong));
    }
}
