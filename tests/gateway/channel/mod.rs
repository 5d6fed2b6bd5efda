//! The control channel: connecting, limits, upgrades, and the renewal of its token.

mod connect;
mod floods;
mod renewal;
mod speech;
mod upgrades;
