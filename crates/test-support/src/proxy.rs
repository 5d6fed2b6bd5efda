//! A TCP proxy whose connections can be cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Forwards TCP connections to a port of this machine.
pub struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepted: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy in front of `port`.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let connections = Arc::<Mutex<Vec<JoinHandle<()>>>>::default();
        let accepted = Arc::<AtomicUsize>::default();
        let (all, count) = (connections.clone(), accepted.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let forwarding = tokio::spawn(async move {
                    // If nothing listens, the client's connection ends.
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = client.set_nodelay(true);
                        let _ = server.set_nodelay(true);
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
                all.lock().expect("no connection panicked").push(forwarding);
            }
        });
        Self { address, connections, accepted, accepting }
    }

    /// `url` with the address of the proxy.
    ///
    /// # Panics
    /// If it is no URL.
    pub fn instead_of(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        format!("{scheme}://{}{path}", self.address)
    }

    /// Cuts all connections. Data in flight is lost in both directions.
    ///
    /// # Panics
    /// If the proxy panicked.
    pub fn cut(&self) {
        for connection in self.connections.lock().expect("no connection panicked").drain(..) {
            connection.abort();
        }
    }

    /// The number of connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}
