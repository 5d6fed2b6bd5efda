//! While the gateway shuts down it accepts no new clients: they are told to try again, and reach another machine
//! or the next process.

use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};

use crate::http::{AppState, error::ApiError};

/// Extracted by handlers that take new clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotDraining;

impl NotDraining {
    pub(crate) fn check(app: &AppState) -> Result<Self, ApiError> {
        if app.is_draining() { Err(ApiError::draining()) } else { Ok(Self) }
    }
}

impl FromRequest for NotDraining {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let app = request.app_data::<web::Data<AppState>>();
        ready(
            app.ok_or_else(|| ApiError::internal("the application has no state"))
                .and_then(|app| Self::check(app)),
        )
    }
}
