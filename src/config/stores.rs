//! What is kept on disk.

use std::{path::PathBuf, time::Duration};

use crate::config::Reader;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// History, sessions, the deny list and generated secrets (`DATA_DIR`).
    pub data_dir: PathBuf,
    /// How long session records are kept after the session ended; none for ever (`SESSION_RETENTION_DAYS`).
    pub session_retention: Option<Duration>,
    /// The free space of `DATA_DIR` under which an operator is warned, in bytes (`DISK_FREE_WARN_MB`).
    pub free_warn_bytes: u64,
}

impl Reader<'_> {
    pub(super) fn stores(&mut self) -> StoreConfig {
        let days: u32 = self.parsed("SESSION_RETENTION_DAYS").unwrap_or(30);
        let free_warn_mb: u32 = self.parsed("DISK_FREE_WARN_MB").unwrap_or(256);
        StoreConfig {
            data_dir: self.data_dir(),
            session_retention: (days > 0).then(|| DAY * days),
            free_warn_bytes: u64::from(free_warn_mb) << 20,
        }
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.path("DATA_DIR").unwrap_or_else(|| "data".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    #[test]
    fn session_records_are_kept_for_a_month_for_so_many_days_or_for_ever() {
        for (value, retention) in [("", Some(DAY * 30)), ("1", Some(DAY)), ("0", None)] {
            let stores = read(&[("SESSION_RETENTION_DAYS", value)]).unwrap().stores;
            assert_eq!(stores.session_retention, retention, "{value}");
        }
        assert!(read(&[("SESSION_RETENTION_DAYS", "-1")]).is_err());
    }
}
