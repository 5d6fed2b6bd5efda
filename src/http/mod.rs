//! HTTP: [`router`] has every route on one screen; the handlers are grouped by what they are about.

mod access;
mod address;
mod admin;
mod ai;
mod channel;
mod consumers;
pub mod error;
mod health;
mod june;
mod mentra;
pub(crate) mod middleware;
mod pages;
mod rooms;
mod router;
pub mod server;
mod sessions;
mod state;
mod store_errors;

pub use self::health::Part;
pub(crate) use self::{
    health::Health,
    middleware::origin::OriginPolicy,
    rooms::webhook::Webhooks,
    router::{metrics_routes, routes},
    state::AppState,
};
