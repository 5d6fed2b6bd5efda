//! Sessions: over REST, across connections, and what is kept of them.

mod conversation;
mod history;
mod options;
mod photos;
mod renewal;
mod rest;
mod resume;
mod takeover;
mod tools;
