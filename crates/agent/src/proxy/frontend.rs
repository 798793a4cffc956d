//! One address that is listened on: accepts, finds an endpoint that answers, and copies.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::balancer::Balancer;
use super::table::Frontend;

/// An endpoint that has not answered by then counts as dead.
const CONNECT: Duration = Duration::from_millis(300);
/// A client is held this long while no endpoint answers: a pod that is being replaced, or an
/// endpoint that is about to become known, costs time and not a failed request.
const HOLD: Duration = Duration::from_secs(3);
/// Between two rounds over all endpoints.
const ROUND: Duration = Duration::from_millis(50);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Opens the listening socket. Addresses of the cluster are shared between the agents of a
/// host; a node port is not, so that a conflict shows.
///
/// # Errors
/// Of the system: in use, not permitted, no such address.
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What a listener and its connections share.
pub struct Listening {
    /// The newest word about the service.
    pub frontend: watch::Receiver<Frontend>,
    /// Connections of all listeners.
    pub connections: Arc<Semaphore>,
    /// The tasks of connections.
    pub tasks: TaskTracker,
}

/// Serves until cancelled. Connections go on after that.
pub async fn serve(listener: TcpListener, listening: Listening, cancel: CancellationToken) {
    let balancer = Arc::new(Balancer::default());
    loop {
        // Taken before accepting: at the limit, clients wait in the kernel's queue.
        let Ok(permit) = listening.connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (client, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ROUND).await;
                continue;
            }
        };
        let (balancer, frontend) = (balancer.clone(), listening.frontend.clone());
        // A connection of a service; its failure is the client's to see, and is logged.
        listening.tasks.spawn(async move {
            if let Err(error) = connection(client, from.ip(), &balancer, frontend).await {
                debug!(%error, %from, "a connection of a service ended");
            }
            drop(permit);
        });
    }
}

async fn connection(
    mut client: TcpStream,
    from: IpAddr,
    balancer: &Balancer,
    frontend: watch::Receiver<Frontend>,
) -> io::Result<()> {
    let mut server = connect(from, balancer, frontend).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// A connection to the first endpoint that answers.
async fn connect(
    from: IpAddr,
    balancer: &Balancer,
    mut frontend: watch::Receiver<Frontend>,
) -> io::Result<TcpStream> {
    let deadline = Instant::now() + HOLD;
    loop {
        let (backends, affinity) = {
            let current = frontend.borrow_and_update();
            (current.backends.clone(), current.affinity)
        };
        for address in balancer.order(&backends, from, affinity, Instant::now()) {
            match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(server)) => {
                    balancer.connected(address, from, affinity, Instant::now());
                    return Ok(server);
                }
                Ok(Err(error)) => debug!(%address, %error, "an endpoint does not answer"),
                Err(_) => debug!(%address, "an endpoint does not answer in time"),
            }
            balancer.failed(address, Instant::now());
        }
        if Instant::now() >= deadline {
            let service = frontend.borrow().service.clone();
            return Err(io::Error::other(format!("no endpoint of service {service} answers")));
        }
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            changed = frontend.changed() => if changed.is_err() {
                return Err(io::Error::other("the service is gone"));
            },
        }
    }
}
