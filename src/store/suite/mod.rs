//! What every implementation of a store promises: one suite of tests per trait.

pub(crate) mod deny_list;
pub(crate) mod history;
pub(crate) mod sessions;
