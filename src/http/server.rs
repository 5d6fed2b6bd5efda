//! The HTTP servers: sockets, timeouts, and the application that each connection is served by.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_http::{HttpService, Request, body::BoxBody};
use actix_server::ServerHandle;
use actix_service::{
    IntoServiceFactory, ServiceFactoryExt,
    boxed::{self, BoxServiceFactory},
    map_config,
};
use actix_web::{
    App,
    dev::{AppConfig, ServiceResponse},
    middleware::from_fn,
    rt::net::TcpStream,
    web,
};
use tokio::task::JoinHandle;

use crate::{
    http::{AppState, middleware::log},
    ws::{send_queue::Connection, upgrade},
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
        app: &web::Data<AppState>,
    ) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let data = app.clone();
        let builder = actix_server::Server::build();
        let stopping = builder.graceful_shutdown_signal();
        let server = builder
            .workers(workers)
            .disable_signals()
            .shutdown_timeout(SHUTDOWN.as_secs())
            .listen("http", listener, move || {
                let stopping = stopping.clone();
                HttpService::build()
                    .client_disconnect_timeout(Duration::from_secs(1))
                    .tcp_nodelay(true)
                    .local_addr(address)
                    .on_connect_ext(|tcp: &TcpStream, extensions| {
                        if let Ok(connection) = prepare(tcp) {
                            extensions.insert(connection);
                        }
                    })
                    .graceful_shutdown_signal(move || {
                        let stopping = stopping.clone();
                        async move { stopping.notified().await }
                    })
                    .upgrade(upgrade::factory(application(routes, data.clone())))
                    .finish(application(routes, data.clone()).map_err(|error| error.error_response()))
                    .tcp()
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

pub(crate) type Routes = BoxServiceFactory<(), Request, ServiceResponse<BoxBody>, actix_web::Error, ()>;

fn application(routes: fn(&mut web::ServiceConfig), app: web::Data<AppState>) -> Routes {
    let app = App::new().app_data(app).wrap(from_fn(log::requests)).configure(routes);
    boxed::factory(
        map_config(app.into_factory(), |()| AppConfig::default()).map(ServiceResponse::map_into_boxed_body),
    )
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
