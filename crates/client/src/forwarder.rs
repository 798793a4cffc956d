//! One address for clients that know one server only, such as kubectl: connections are passed to
//! a master that lives. It looks at no byte of them, so TLS is between the client and the master.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::Client;

/// Masters are asked for a sign of life this often.
const PROBE: Duration = Duration::from_millis(500);
/// How long a master may take to take a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// Connections passed on at once; more are refused.
const MAX_CONNECTIONS: usize = 4096;
/// Pause when the system has no more file descriptors for us.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Masters by address, with whether they answered last.
type Alive = HashMap<String, bool>;

/// Passes connections on for as long as it is polled; dropping it ends them. The client's
/// attempt timeout is the silence after which a master counts as dead.
pub async fn forward(listener: TcpListener, client: Client) {
    let addresses: Vec<String> = client.endpoints().iter().map(|url| address(url)).collect();
    // Nobody is refused before the first answers have come.
    let all = addresses.iter().map(|address| (address.clone(), true)).collect();
    let (sender, alive) = watch::channel(all);
    tokio::join!(probe(&client, sender), accept(listener, &addresses, alive));
}

async fn probe(client: &Client, alive: watch::Sender<Alive>) {
    loop {
        let answers = client.statuses().await.into_iter().map(|(url, answer)| {
            // A master that refuses lives.
            let lives = answer.map_or_else(|error| error.code != Code::Unavailable, |_| true);
            (address(&url), lives)
        });
        let answers: Alive = answers.collect();
        alive.send_if_modified(|old| {
            let changed = *old != answers;
            *old = answers;
            changed
        });
        sleep(PROBE).await;
    }
}

async fn accept(listener: TcpListener, addresses: &[String], alive: watch::Receiver<Alive>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let addresses: Arc<[String]> = addresses.into();
    let next = Arc::new(AtomicUsize::new(0));
    // Ends all connections when this future is dropped.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(EXHAUSTED).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("refused: {MAX_CONNECTIONS} connections are open");
            continue;
        };
        let (addresses, alive, next) = (Arc::clone(&addresses), alive.clone(), Arc::clone(&next));
        // Task "forwarded connection": ends with its connection.
        connections.spawn(async move {
            let _place = place;
            pass(stream, &addresses, alive, &next).await;
        });
    }
}

/// Passes one connection on, until either side closes it or the master is dead.
async fn pass(
    mut stream: TcpStream,
    addresses: &[String],
    mut alive: watch::Receiver<Alive>,
    next: &AtomicUsize,
) {
    let now = alive.borrow().clone();
    let Some((address, mut master)) = connect(addresses, &now, next).await else {
        tracing::warn!("no master takes connections");
        return;
    };
    // Small requests and answers shall not wait for more; without it they would only be slower.
    let _ = (stream.set_nodelay(true), master.set_nodelay(true));
    let dead = async {
        // One that took the connection though it had not answered counts as dead again only
        // after it has answered.
        let lives = |alive: &Alive| alive.get(&address).copied().unwrap_or(true);
        if alive.wait_for(lives).await.is_ok() {
            let _ = alive.wait_for(|alive| !lives(alive)).await;
        }
    };
    tokio::select! {
        // How it ends is between the two.
        _ = copy_bidirectional(&mut stream, &mut master) => {}
        // The client notices at once, and comes again.
        _ = dead => tracing::debug!(address, "the master is dead: its connections are closed"),
    }
}

/// A connection to a master: one that lives, or else any that takes it. Masters take turns.
async fn connect(
    addresses: &[String],
    alive: &Alive,
    next: &AtomicUsize,
) -> Option<(String, TcpStream)> {
    let first = next.fetch_add(1, Ordering::Relaxed);
    let turn = |i: usize| &addresses[(first + i) % addresses.len()];
    let mut order: Vec<&String> = (0..addresses.len()).map(turn).collect();
    order.sort_by_key(|address| !alive.get(*address).copied().unwrap_or(true));
    for address in order {
        if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(address)).await {
            return Some((address.clone(), stream));
        }
    }
    None
}

/// `https://host:port/` without scheme and slash.
fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/').to_owned()
}

#[cfg(test)]
#[path = "forwarder_test.rs"]
mod tests;
