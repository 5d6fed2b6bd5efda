//! The `june` binary on bad days: what the environment does to it, and what an operator and a client see of that.
//!
//! Every test starts a gateway of its own ([`support::June`]) without models and without LiveKit; the echo
//! model answers typed lines. Disks of a chosen size are [`support::SmallDisk`]s. What can be
//! repeated is repeated as often as [`support::times`] says.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where something is missing, waits for one message of many"
)]

mod at_rest;
mod clock;
mod damage;
mod descriptors;
mod disk;
mod kill;
mod outages;
mod slow_clients;
mod support;
mod terminated;
