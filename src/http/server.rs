//! The HTTP servers: sockets, timeouts, and the application that each connection is served by.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_http::{HttpService, Protocol, body::MessageBody, error::DispatchError};
use actix_server::ServerHandle;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, boxed, fn_service, map_config};
use actix_web::{
    App, ResponseError,
    dev::{AppConfig, ServiceResponse},
    middleware::from_fn,
    rt::net::TcpStream,
    web,
};
use tokio::task::JoinHandle;

use crate::{
    config::{ServerConfig, Timeouts},
    error::Code,
    http::{
        AppState,
        error::ApiError,
        middleware::{body, log},
    },
    tcp::{
        limit::{ConnectionLimit, Refused},
        stream::ClientStream,
    },
    ws::{
        send_queue::Connection,
        upgrade::{self, Routes},
    },
};

/// The system closes a connection whose peer acknowledges nothing for this long (TCP_USER_TIMEOUT, RFC 5482).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The send buffer of a connection, in bytes. The system's default of some megabytes would be most of the memory
/// that a stalled client uses.
const SEND_BUFFER: usize = 64 * 1024;

/// How many connections may wait to be accepted. After a restart all clients reconnect at once.
const BACKLOG: i32 = 2_048;

/// How long open requests may take when the gateway stops.
pub const SHUTDOWN: Duration = Duration::from_secs(5);

/// A running HTTP server.
pub(crate) struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Binds, and serves in the background.
    pub(crate) fn start(
        address: SocketAddr,
        workers: usize,
        routes: fn(&mut web::ServiceConfig),
        config: &ServerConfig,
        app: &web::Data<AppState>,
    ) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let data = app.clone();
        let timeouts = config.timeouts;
        let limit = ConnectionLimit::new(&config.connections, app.address_header.is_some());
        let builder = actix_server::Server::build();
        let stopping = builder.graceful_shutdown_signal();
        let server = builder
            .workers(workers)
            .disable_signals()
            .shutdown_timeout(SHUTDOWN.as_secs())
            .listen("http", listener, move || {
                let (stopping, limit) = (stopping.clone(), limit.clone());
                let http = HttpService::build()
                    .client_request_timeout(timeouts.head)
                    .client_disconnect_timeout(Duration::from_secs(1))
                    .local_addr(address)
                    .on_connect_ext(move |stream: &ClientStream, extensions| {
                        if let Ok(connection) = prepare(stream.tcp()) {
                            extensions.insert(connection);
                        }
                        extensions.insert(stream.activity());
                        extensions.insert(timeouts);
                    })
                    .graceful_shutdown_signal(move || {
                        let stopping = stopping.clone();
                        async move { stopping.notified().await }
                    })
                    .upgrade(upgrade::factory(application(routes, data.clone()), timeouts))
                    .finish(application(routes, data.clone()).map_err(|error| error.error_response()));
                fn_service(move |tcp| admit(tcp, limit.clone(), timeouts)).and_then(http)
            })?
            .run();
        let handle = server.handle();
        Ok(Self { address, handle, serving: actix_web::rt::spawn(server) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops when open requests have ended, at the latest after [`SHUTDOWN`].
    pub(crate) async fn stop(self) {
        self.handle.stop(true).await;
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "an HTTP server failed");
        }
    }
}

/// The routes, with what they work on.
fn application(routes: fn(&mut web::ServiceConfig), app: web::Data<AppState>) -> Routes {
    let app =
        App::new().app_data(app).wrap(from_fn(body::limited)).wrap(from_fn(log::requests)).configure(routes);
    boxed::factory(
        map_config(app.into_factory(), |()| AppConfig::default()).map(ServiceResponse::map_into_boxed_body),
    )
}

/// Takes a connection over, or refuses it.
async fn admit(
    tcp: TcpStream,
    limit: ConnectionLimit,
    timeouts: Timeouts,
) -> Result<(ClientStream, Protocol, Option<SocketAddr>), DispatchError> {
    let peer = tcp.peer_addr().ok();
    match limit.take(peer) {
        Ok(place) => {
            tcp.set_nodelay(true)?;
            Ok((ClientStream::new(tcp, place, &timeouts), Protocol::Http1, peer))
        }
        Err(refused) => {
            // A new connection has space for this. It is not waited for: the client would keep its place.
            tcp.writable().await?;
            let _ = tcp.try_write(&refusal(refused));
            Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections").into())
        }
    }
}

/// The response to a connection that is refused, sent before any request is read.
fn refusal(refused: Refused) -> Vec<u8> {
    let error = match refused {
        Refused::All => ApiError::new(Code::Overloaded, "too many connections are open"),
        Refused::Address => {
            ApiError::new(Code::RateLimited, "too many connections from this address are open")
        }
    };
    let response = error.error_response();
    let mut bytes = format!("HTTP/1.1 {}\r\nconnection: close\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let body = response.into_body().try_into_bytes().unwrap_or_default();
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    bytes.extend(body);
    bytes
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // Lets a restarted gateway bind its port while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Bounds the memory and the time that a client which is gone or does not read can use; returns a handle to abort
/// the connection.
fn prepare(tcp: &TcpStream) -> io::Result<Connection> {
    let socket = socket2::SockRef::from(tcp);
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    Connection::of(tcp)
}
