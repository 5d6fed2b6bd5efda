//! What is kept on disk.

use std::path::PathBuf;

use crate::config::Reader;

#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// History, sessions, the deny list and generated secrets (`DATA_DIR`).
    pub data_dir: PathBuf,
}

impl Reader<'_> {
    pub(super) fn stores(&mut self) -> StoreConfig {
        StoreConfig { data_dir: self.path("DATA_DIR").unwrap_or_else(|| "data".into()) }
    }
}
