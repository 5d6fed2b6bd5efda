//! Every route on one screen, and who may use it.

use actix_web::{
    FromRequest, Handler, HttpResponse, Responder, ResponseError, Route,
    dev::HttpServiceFactory,
    http::{
        Method,
        header::{ALLOW, HeaderValue},
    },
    middleware::from_fn,
    web::{self, ServiceConfig},
};

use crate::{
    error::Code,
    http::{
        access::{self, Right},
        admin, ai, channel, consumers, error,
        error::ApiError,
        health, june, mentra,
        middleware::{deadline, origin},
        pages, rooms, sessions,
    },
};

/// The largest body of a REST request, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;

/// Clients, backends and operators. docs/REST.md describes each of them.
pub(crate) fn routes(config: &mut ServiceConfig) {
    use Right::{
        Administer, Channel, Consume, CreateSession, Observe, Page, Phone, Probe, Public, Room, RoomStream,
        Session, Transcripts, Webhook,
    };
    let json = web::JsonConfig::default().limit(MAX_BODY);
    config
        .app_data(json.error_handler(|error, _| error::json(&error).into()))
        .app_data(web::PathConfig::default().error_handler(|error, _| error::path(&error).into()))
        .app_data(web::QueryConfig::default().error_handler(|error, _| error::query(&error).into()))
        // Sessions and their tokens
        .service(at("/api/sessions", CreateSession, [post(sessions::create)]))
        .service(at("/api/sessions/{id}", Session, [get(sessions::show), delete(sessions::end)]))
        .service(at("/api/sessions/{id}/token", Session, [post(sessions::tokens::renew)]))
        .service(at("/api/sessions/{id}/control-token", Session, [post(sessions::tokens::control)]))
        .service(at("/api/sessions/{id}/guest-token", Session, [post(sessions::guest::invite)]))
        .service(at("/api/sessions/{id}/participants", Session, [get(sessions::participants)]))
        .service(at(
            "/api/sessions/{id}/participants/{identity}",
            Session,
            [delete(sessions::removal::remove)],
        ))
        .service(at(
            "/api/sessions/{id}/history",
            Session,
            [get(sessions::history::of_session), delete(sessions::history::delete)],
        ))
        .service(at(
            "/api/sessions/{id}/tool-calls/{call_id}/image",
            Session,
            [put(sessions::tool_calls::upload)],
        ))
        // A line and its answer
        .service(at("/api/ai/chat", Session, [post(ai::chat)]))
        .service(at("/api/ai/process", Session, [post(ai::chat)]))
        // Transcripts from elsewhere
        .service(at("/api/webhooks/stt", Transcripts, [post(june::stt::transcript)]))
        .service(at("/api/webhooks/voice_onset", Transcripts, [post(june::stt::voice_onset)]))
        // Rooms
        .service(at("/api/livekit/participants", Room, [get(rooms::participants::list)]))
        .service(at("/api/livekit/participants/stream", RoomStream, [get(rooms::stream::open)]))
        .service(at("/api/livekit/participants/stream-token", Room, [post(rooms::stream_token::issue)]))
        .service(at("/api/livekit/webhook", Webhook, [post(rooms::webhook::receive)]))
        .service(at("/api/livekit-webhooks", Webhook, [post(rooms::webhook::receive)]))
        // Operators, by API key
        .service(at("/api/admin/sessions", Observe, [get(admin::sessions::list)]))
        .service(at("/api/admin/sessions/{id}/disconnect", Administer, [post(admin::sessions::disconnect)]))
        .service(at("/api/admin/rooms", Observe, [get(admin::rooms::list)]))
        .service(at("/api/admin/rooms/{room}/stats", Observe, [get(admin::rooms::stats)]))
        .service(at("/api/admin/rooms/{room}/recordings", Administer, [post(admin::recordings::start)]))
        .service(at("/api/admin/recordings", Observe, [get(admin::recordings::list)]))
        .service(at("/api/admin/recordings/{egress_id}", Administer, [delete(admin::recordings::stop)]))
        // The control channel
        .service(at("/v1/ws", Channel, [get(channel::connect)]))
        .service(at("/glasses-ws", Channel, [get(channel::connect_mentra)]))
        // MentraOS phones
        .service(at("/clips/{clip}", Public, [get(mentra::clips::fetch), head(mentra::clips::fetch)]))
        .service(at("/api/client/livekit/token", Phone, [get(mentra::phone::livekit_token)]))
        .service(at("/api/client/audio/configure", Phone, [post(mentra::phone::configure_audio)]))
        .service(at("/api/client/device/state", Phone, [post(mentra::phone::device_state)]))
        .service(at("/api/client/goodbye", Phone, [post(mentra::phone::goodbye)]))
        .service(at("/api/client/min-version", Public, [get(mentra::phone::min_version)]))
        // Consumers
        .service(at("/api/consumer/ws", Consume, [get(consumers::connect)]))
        // Descriptions
        .service(at("/api/asyncapi.json", Public, [get(pages::asyncapi), head(pages::asyncapi)]))
        // Operation
        .service(at("/livez", Probe, [get(health::live), head(health::live)]))
        .service(at("/readyz", Probe, [get(health::ready), head(health::ready)]))
        .service(at("/health", Public, [get(health::report), head(health::report)]))
        .service(at("/metrics", Observe, [get(health::metrics), head(health::metrics)]))
        // The talk page
        .service(at("/", Page, [get(pages::talk), head(pages::talk)]))
        .service(at("/static/{file}", Page, [get(pages::asset), head(pages::asset)]))
        .service(at(
            "/vendor/livekit-client.js",
            Page,
            [get(pages::livekit_client), head(pages::livekit_client)],
        ))
        .default_service(web::to(not_found));
}

/// The separate port for metrics, which only operators reach.
pub(crate) fn metrics_routes(config: &mut ServiceConfig) {
    let metrics = [get(health::metrics_for_operators), head(health::metrics_for_operators)];
    config.service(at("/metrics", Right::Probe, metrics)).default_service(web::to(not_found));
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

fn put<F, Args>(handler: F) -> Endpoint
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    endpoint(Method::PUT, handler)
}

fn delete<F, Args>(handler: F) -> Endpoint
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    endpoint(Method::DELETE, handler)
}

/// A path, who may use it, and its endpoints; another method than theirs is refused with 405.
fn at<const N: usize>(path: &str, right: Right, endpoints: [Endpoint; N]) -> impl HttpServiceFactory {
    let time = deadline::of(path);
    let methods: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.method.as_str()).collect();
    let allow = methods.join(", ");
    let resource = endpoints.into_iter().fold(web::resource(path), |resource, endpoint| {
        let enforced = from_fn(move |request, next| access::enforce(right, request, next));
        resource.route(
            endpoint
                .route
                .wrap(enforced)
                .wrap(from_fn(move |request, next| deadline::answered(time, request, next))),
        )
    });
    resource
        .default_service(web::to(move || std::future::ready(method_not_allowed(&allow))))
        .wrap(from_fn(move |request, next| origin::check(right, request, next)))
}

fn method_not_allowed(allow: &str) -> HttpResponse {
    let error = ApiError::new(Code::MethodNotAllowed, format!("this resource supports {allow}"));
    let mut response = error.error_response();
    let allow = HeaderValue::from_str(allow).expect("names of methods are valid in a header");
    response.headers_mut().insert(ALLOW, allow);
    response
}

async fn not_found() -> HttpResponse {
    let mut response = ApiError::not_found().error_response();
    origin::harden(response.headers_mut());
    response
}
