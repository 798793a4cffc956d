//! Which endpoint a connection goes to: each in turn from a random start; those that failed
//! a moment ago last; a client's own one first where the service asks for that.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// An endpoint that could not be reached is tried last for this long.
const SUSPECT: Duration = Duration::from_secs(2);
/// Clients remembered; beyond, the oldest memories go.
const CLIENTS: usize = 10_000;

#[derive(Default)]
struct State {
    next: usize,
    suspects: HashMap<SocketAddr, Instant>,
    clients: HashMap<IpAddr, (SocketAddr, Instant)>,
}

/// Remembers the turn, failures and clients of one frontend.
pub struct Balancer {
    state: Mutex<State>,
}

impl Default for Balancer {
    fn default() -> Self {
        let next = usize::from(rand::random::<u16>());
        Self { state: Mutex::new(State { next, ..State::default() }) }
    }
}

impl Balancer {
    /// Endpoints in the order in which to try them.
    #[must_use]
    pub fn order(
        &self,
        backends: &[SocketAddr],
        client: IpAddr,
        affinity: Option<Duration>,
        now: Instant,
    ) -> Vec<SocketAddr> {
        if backends.is_empty() {
            return Vec::new();
        }
        let mut state = self.state.lock();
        let start = state.next % backends.len();
        state.next = state.next.wrapping_add(1);
        let mut order: Vec<SocketAddr> = backends.to_vec();
        order.rotate_left(start);
        state.suspects.retain(|_, since| now.duration_since(*since) < SUSPECT);
        order.sort_by_key(|address| state.suspects.contains_key(address));
        if let Some(limit) = affinity {
            let own = state.clients.get(&client);
            let own = own.filter(|(_, since)| now.duration_since(*since) < limit).map(|o| o.0);
            if let Some(position) = order.iter().position(|address| Some(*address) == own) {
                order[..=position].rotate_right(1);
            }
        }
        order
    }

    /// A connection to this endpoint failed.
    pub fn failed(&self, address: SocketAddr, now: Instant) {
        self.state.lock().suspects.insert(address, now);
    }

    /// A connection of this client was made.
    pub fn connected(
        &self,
        address: SocketAddr,
        client: IpAddr,
        affinity: Option<Duration>,
        now: Instant,
    ) {
        let mut state = self.state.lock();
        state.suspects.remove(&address);
        let Some(limit) = affinity else { return };
        if state.clients.len() >= CLIENTS {
            state.clients.retain(|_, (_, since)| now.duration_since(*since) < limit / 2);
            if state.clients.len() >= CLIENTS {
                state.clients.clear();
            }
        }
        state.clients.insert(client, (address, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn each_has_its_turn() {
        let (balancer, now) = (Balancer::default(), Instant::now());
        let all = [address(1), address(2), address(3)];
        let mut first: Vec<SocketAddr> =
            (0..6).map(|_| balancer.order(&all, CLIENT, None, now)[0]).collect();
        first.sort_unstable();
        let twice = [1, 1, 2, 2, 3, 3].map(address);
        assert_eq!(first, twice);
        assert!(balancer.order(&[], CLIENT, None, now).is_empty());
    }

    #[test]
    fn what_failed_is_tried_last_for_a_while() {
        let (balancer, now) = (Balancer::default(), Instant::now());
        let all = [address(1), address(2), address(3)];
        balancer.failed(address(2), now);
        for _ in 0..6 {
            assert_eq!(balancer.order(&all, CLIENT, None, now)[2], address(2));
        }
        let later = now + SUSPECT;
        let firsts = (0..3).map(|_| balancer.order(&all, CLIENT, None, later)[0]);
        assert!(firsts.into_iter().any(|first| first == address(2)));
    }

    #[test]
    fn a_client_stays_where_it_was() {
        let (balancer, now) = (Balancer::default(), Instant::now());
        let all = [address(1), address(2), address(3)];
        let limit = Some(Duration::from_secs(60));
        balancer.connected(address(3), CLIENT, limit, now);
        for _ in 0..6 {
            assert_eq!(balancer.order(&all, CLIENT, limit, now)[0], address(3));
        }
        let firsts =
            (0..6).map(|_| balancer.order(&all, CLIENT, limit, now + Duration::from_secs(60))[0]);
        assert!(firsts.into_iter().any(|first| first != address(3)));
    }
}
