use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime of the media agents. It is separate from the ones of HTTP and sessions, so that neither delays audio.
pub(super) struct MediaRuntime(Option<Runtime>);

impl MediaRuntime {
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(threads).thread_name("media").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> Handle {
        self.0.as_ref().expect("taken by drop only").handle().clone()
    }
}

impl Drop for MediaRuntime {
    /// Dropping a `Runtime` blocks until its tasks end, which is not allowed on an async thread.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
