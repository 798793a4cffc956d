//! For unit tests: an address where nobody listens.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// An address where nobody listens yet. It is held until the process ends, without listening, so that
/// nobody else is given it.
pub(crate) fn closed_address() -> std::io::Result<SocketAddr> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = socket.local_addr()?;
    std::mem::forget(socket);
    Ok(address)
}
