//! ONNX Runtime: one shared library, loaded by path at run time, for Silero, Moonshine and Piper.
//!
//! The library allows one environment per process and never frees it, so the loaded one is kept in a static.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::ep;
use ort::session::Session;
use parking_lot::Mutex;

use crate::providers::ProviderError;

/// The library and its environment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    environment: Environment,
}

/// The loaded library, returned by later calls of [`Runtime::load`].
static LOADED: Mutex<Option<(PathBuf, Runtime)>> = Mutex::new(None);

impl Runtime {
    /// Loads `library` (libonnxruntime, 1.22 or later). [`ProviderError::Unavailable`] if the file is missing, invalid or
    /// too old, or if another library was loaded before.
    pub fn load(library: &Path) -> Result<Self, ProviderError> {
        let shown = library.display();
        let mut loaded = LOADED.lock();
        if let Some((path, runtime)) = &*loaded {
            return match path == library {
                true => Ok(runtime.clone()),
                false => Err(ProviderError::Unavailable(format!(
                    "ONNX Runtime is already loaded from {}, not from {shown}",
                    path.display()
                ))),
            };
        }
        if !library.is_file() {
            return Err(ProviderError::Unavailable(format!("no ONNX Runtime at {shown}")));
        }
        let unusable =
            |error: &dyn Display| ProviderError::Unavailable(format!("ONNX Runtime at {shown}: {error}"));
        let environment = ort::init_from(library)
            .map_err(|error| unusable(&error))?
            .with_name("june-edge")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(&error))?;
        let runtime = Self { environment };
        *loaded = Some((library.to_owned(), runtime.clone()));
        Ok(runtime)
    }

    /// Opens a model. It runs on the calling thread, so that the number of threads that run inference is the number of
    /// workers. [`ProviderError::Unavailable`] if the file is missing or invalid.
    pub(crate) fn session(&self, model: &Path) -> Result<Session, ProviderError> {
        let open = || -> ort::Result<Session> {
            Session::builder(&self.environment)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                // Inputs differ in length: with patterns and arenas, each worker would keep the memory of its longest.
                .with_memory_pattern(false)?
                .with_execution_providers([ep::CPU::default().with_arena_allocator(false).build()])?
                .commit_from_file(model)
        };
        open().map_err(|error| ProviderError::Unavailable(format!("model {}: {error}", model.display())))
    }
}

impl From<ort::Error> for ProviderError {
    fn from(error: ort::Error) -> Self {
        ProviderError::Inference(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let error = Runtime::load(Path::new("/nowhere/libonnxruntime.so")).unwrap_err();

        assert!(error.to_string().contains("/nowhere/libonnxruntime.so"), "{error}");
    }
}
