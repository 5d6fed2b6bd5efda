//! Inference of embedded models: ONNX Runtime, and the threads that run it.

pub mod onnx;
pub(super) mod shared_model;
pub mod worker_pool;
