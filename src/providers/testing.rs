//! What the tests of providers share.

use crate::providers::inference::onnx::Runtime;

pub(crate) use test_support::{models, transcripts, word_errors};

pub(crate) fn runtime() -> Runtime {
    Runtime::load(&models().join("libonnxruntime.so.1.23.2")).expect("scripts/setup models installs it")
}
