//! Failures of stores, the session registry and the deny list, as clients see them.

use std::time::Duration;

use crate::{
    deny::DenyError, error::Code, http::error::ApiError, session::registry::RegistryError, store::StoreError,
};

/// When to try again what a failing disk refused: the store looks at the disk at least this often.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full | StoreError::Closed => {
                tracing::warn!(%error, "request refused");
                Self::new(Code::Overloaded, "the gateway cannot store this now; try again")
            }
            // Logged where the disk failed.
            StoreError::Unavailable { .. } => {
                Self::new(Code::Overloaded, "the gateway cannot store this now; try again")
                    .after(UNAVAILABLE_RETRY)
            }
            StoreError::Failed(_) => Self::internal(error),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound => Self::no_such_session(),
            RegistryError::OtherUser | RegistryError::Removed => {
                Self::new(Code::Forbidden, error.to_string())
            }
            RegistryError::Limited(refusal) => refusal.into(),
            RegistryError::Store(error) => error.into(),
        }
    }
}

impl From<DenyError> for ApiError {
    fn from(error: DenyError) -> Self {
        match error {
            DenyError::Full(refusal) => refusal.into(),
            DenyError::Store(error) => error.into(),
        }
    }
}
