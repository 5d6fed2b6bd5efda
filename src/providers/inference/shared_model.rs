//! A model whose weights several threads share.

use std::{
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr,
    sync::{Arc, Weak},
};

use ort::session::Session;
use parking_lot::Mutex;

use crate::providers::ProviderError;

/// A model that is loaded when it is needed, and is in memory once, for as long as there are handles.
pub(crate) struct SharedModel<L> {
    load: Box<dyn Fn() -> Result<L, ProviderError> + Send + Sync>,
    loaded: Mutex<Weak<L>>,
}

impl<L> SharedModel<L> {
    pub(crate) fn new(load: impl Fn() -> Result<L, ProviderError> + Send + Sync + 'static) -> Self {
        Self { load: Box::new(load), loaded: Mutex::default() }
    }

    /// The model; loads it where it is not in memory. Others who want it wait meanwhile.
    pub(crate) fn get(&self) -> Result<Arc<L>, ProviderError> {
        let mut loaded = self.loaded.lock();
        if let Some(model) = loaded.upgrade() {
            return Ok(model);
        }
        let model = Arc::new((self.load)()?);
        *loaded = Arc::downgrade(&model);
        Ok(model)
    }
}

/// One thread's handle of a session that others run at the same time.
///
/// ONNX Runtime's `Run` may be called by any number of threads at once on one session ("InferenceSession::Run is
/// thread-safe", onnxruntime's C API and its FAQ), but `ort` takes `&mut Session`.
pub(crate) struct SessionHandle {
    session: ManuallyDrop<Session>,
    /// Outlives the copy above.
    _shared: Arc<Session>,
}

impl SessionHandle {
    #[expect(unsafe_code, reason = "ort has no other way to run one session on several threads")]
    pub(crate) fn new(shared: Arc<Session>) -> Self {
        // SAFETY: the copy is never dropped, so that everything has one owner, `_shared`, which outlives it. Running a
        // session changes none of its fields: it reads their pointers and names. What is behind the pointers is ONNX
        // Runtime's, and safe to run on several threads.
        let session = unsafe { ptr::read(&raw const *shared) };
        Self { session: ManuallyDrop::new(session), _shared: shared }
    }
}

impl Deref for SessionHandle {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for SessionHandle {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
