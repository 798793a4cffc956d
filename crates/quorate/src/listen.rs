//! Addresses that a daemon listens on, checked before anything else starts.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail};

/// Binds `address`, so that a port in use is reported at once and by name.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("{flag}: cannot listen on {address}; is another process using the port? Choose another with {flag}")
    })?;
    listener.set_nonblocking(true).with_context(|| format!("{flag}: {address}"))?;
    Ok(listener)
}

/// Refuses plain text on anything but loopback.
///
/// # Errors
/// When `insecure` is set and `address` can be reached from other machines.
pub fn check_insecure(flag: &str, address: SocketAddr, insecure: bool) -> anyhow::Result<()> {
    if insecure && !address.ip().is_loopback() {
        bail!(
            "{flag} {address}: --insecure is for loopback addresses only; give --tls-dir instead"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_loopback() {
        let outside: SocketAddr = "10.0.0.1:7001".parse().unwrap();
        let inside: SocketAddr = "127.0.0.1:7001".parse().unwrap();
        assert!(check_insecure("--listen", outside, true).is_err());
        assert!(check_insecure("--listen", outside, false).is_ok());
        assert!(check_insecure("--listen", inside, true).is_ok());
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = bind("--listen", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = format!("{:#}", bind("--listen", address).unwrap_err());
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
    }
}
