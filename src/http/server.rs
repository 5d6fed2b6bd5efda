//! The servers: sockets, timeouts, and the way from a connection to the routes.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_http::HttpService;
use actix_server::ServerHandle;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, boxed, map_config};
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
    ws::{
        send_queue::Connection,
        upgrade::{self, Routes},
    },
};

/// A client that acknowledges nothing for this long is gone, whether or not it reads: its connection is
/// ended by the system (TCP_USER_TIMEOUT, RFC 5482).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a stalled client may hold in the system's send buffer. The default of some megabytes would be
/// most of what it costs.
const SEND_BUFFER: usize = 64 * 1024;

/// How many connections may wait to be accepted: a whole machine's clients come back at once.
const BACKLOG: i32 = 2_048;

/// How long open requests may take to end when the gateway stops.
pub const SHUTDOWN: Duration = Duration::from_secs(5);

/// An HTTP server at work.
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Binds, and serves in the background.
    pub fn start(
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, when the requests that are open have ended or [`SHUTDOWN`] is over.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "a server ended badly");
        }
    }
}

/// The routes, with what they work on.
fn application(routes: fn(&mut web::ServiceConfig), app: web::Data<AppState>) -> Routes {
    let app = App::new().app_data(app).wrap(from_fn(log::requests)).configure(routes);
    boxed::factory(
        map_config(app.into_factory(), |()| AppConfig::default()).map(ServiceResponse::map_into_boxed_body),
    )
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // A gateway that is started again takes its port back from connections that linger.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Bounds what a client that is gone, or does not read, can hold; and keeps the way to end it.
fn prepare(tcp: &TcpStream) -> io::Result<Connection> {
    let socket = socket2::SockRef::from(tcp);
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    Connection::of(tcp)
}
