//! Every route on one screen.

use actix_web::{
    FromRequest, Handler, HttpResponse, Resource, Responder, ResponseError, Route,
    http::{
        Method,
        header::{ALLOW, HeaderValue},
    },
    web::{self, ServiceConfig},
};

use crate::{
    error::Code,
    http::{admin, channel, consumers, error, error::ApiError, health, mentra, pages, rooms, sessions},
};

/// The largest body of a REST request, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Clients, backends and operators. docs/REST.md describes each of them.
pub(crate) fn routes(config: &mut ServiceConfig) {
    let json = web::JsonConfig::default().limit(MAX_BODY);
    config
        .app_data(json.error_handler(|error, _| error::json(&error).into()))
        .app_data(web::PathConfig::default().error_handler(|error, _| error::path(&error).into()))
        .app_data(web::QueryConfig::default().error_handler(|error, _| error::query(&error).into()))
        // Sessions and their tokens
        .service(at("/api/sessions", [post(sessions::create)]))
        .service(at("/api/sessions/{id}", [get(sessions::show), delete(sessions::end)]))
        .service(at("/api/sessions/{id}/token", [post(sessions::tokens::renew)]))
        .service(at("/api/sessions/{id}/control-token", [post(sessions::tokens::control)]))
        .service(at("/api/sessions/{id}/guest-token", [post(sessions::guest::invite)]))
        .service(at("/api/sessions/{id}/participants", [get(sessions::participants)]))
        .service(at("/api/sessions/{id}/participants/{identity}", [delete(sessions::removal::remove)]))
        .service(at(
            "/api/sessions/{id}/history",
            [get(sessions::history::of_session), delete(sessions::history::delete)],
        ))
        // Rooms
        .service(at("/api/livekit/participants", [get(rooms::participants::list)]))
        .service(at("/api/livekit/participants/stream", [get(rooms::stream::open)]))
        .service(at("/api/livekit/participants/stream-token", [post(rooms::stream_token::issue)]))
        .service(at("/api/livekit/webhook", [post(rooms::webhook::receive)]))
        .service(at("/api/livekit-webhooks", [post(rooms::webhook::receive)]))
        // Operators, by API key
        .service(at("/api/admin/sessions", [get(admin::sessions::list)]))
        .service(at("/api/admin/sessions/{id}/disconnect", [post(admin::sessions::disconnect)]))
        .service(at("/api/admin/rooms", [get(admin::rooms::list)]))
        .service(at("/api/admin/rooms/{room}/stats", [get(admin::rooms::stats)]))
        .service(at("/api/admin/rooms/{room}/recordings", [post(admin::recordings::start)]))
        .service(at("/api/admin/recordings", [get(admin::recordings::list)]))
        .service(at("/api/admin/recordings/{egress_id}", [delete(admin::recordings::stop)]))
        // The control channel
        .service(at("/v1/ws", [get(channel::connect)]))
        .service(at("/glasses-ws", [get(channel::connect_mentra)]))
        // MentraOS phones
        .service(at("/clips/{clip}", [get(mentra::clips::fetch), head(mentra::clips::fetch)]))
        .service(at("/api/client/livekit/token", [get(mentra::phone::livekit_token)]))
        .service(at("/api/client/audio/configure", [post(mentra::phone::configure_audio)]))
        .service(at("/api/client/device/state", [post(mentra::phone::device_state)]))
        .service(at("/api/client/goodbye", [post(mentra::phone::goodbye)]))
        .service(at("/api/client/min-version", [get(mentra::phone::min_version)]))
        // Consumers
        .service(at("/api/consumer/ws", [get(consumers::connect)]))
        // Descriptions
        .service(at("/api/asyncapi.json", [get(pages::asyncapi), head(pages::asyncapi)]))
        // Operation
        .service(at("/livez", [get(health::live), head(health::live)]))
        .service(at("/readyz", [get(health::ready), head(health::ready)]))
        .service(at("/health", [get(health::report), head(health::report)]))
        .service(at("/metrics", [get(health::metrics), head(health::metrics)]))
        // The talk page
        .service(at("/", [get(pages::talk), head(pages::talk)]))
        .service(at("/static/{file}", [get(pages::asset), head(pages::asset)]))
        .service(at("/vendor/livekit-client.js", [get(pages::livekit_client), head(pages::livekit_client)]))
        .default_service(web::to(not_found));
}

/// The separate port for metrics, which only operators reach.
pub(crate) fn metrics_routes(config: &mut ServiceConfig) {
    let metrics = [get(health::metrics_for_operators), head(health::metrics_for_operators)];
    config.service(at("/metrics", metrics)).default_service(web::to(not_found));
}

/// A handler and the method that it is for.
struct Endpoint {
    method: Method,
    route: Route,
}

fn endpoint<F, Args>(method: Method, handler: F) -> Endpoint
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    Endpoint { route: web::method(method.clone()).to(handler), method }
}

fn get<F, Args>(handler: F) -> Endpoint
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    endpoint(Method::GET, handler)
}

/// The same handler as for GET: the server leaves out the body, and keeps its length (RFC 9110 §9.3.2).
fn head<F, Args>(handler: F) -> Endpoint
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    endpoint(Method::HEAD, handler)
}

fn post<F, Args>(handler: F) -> Endpoint
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    endpoint(Method::POST, handler)
}

fn delete<F, Args>(handler: F) -> Endpoint
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    endpoint(Method::DELETE, handler)
}

/// A path; another method than those of its endpoints is refused with 405.
fn at<const N: usize>(path: &str, endpoints: [Endpoint; N]) -> Resource {
    let methods: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.method.as_str()).collect();
    let allow = methods.join(", ");
    let resource =
        endpoints.into_iter().fold(web::resource(path), |resource, endpoint| resource.route(endpoint.route));
    resource.default_service(web::to(move || std::future::ready(method_not_allowed(&allow))))
}

fn method_not_allowed(allow: &str) -> HttpResponse {
    let error = ApiError::new(Code::MethodNotAllowed, format!("this resource supports {allow}"));
    let mut response = error.error_response();
    let allow = HeaderValue::from_str(allow).expect("names of methods are valid in a header");
    response.headers_mut().insert(ALLOW, allow);
    response
}

async fn not_found() -> Result<HttpResponse, ApiError> {
    Err(ApiError::not_found())
}
